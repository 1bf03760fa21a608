variable "name" {
  description = "Name of the web ACL."
  type        = string
}

variable "stage_arn" {
  description = "The REST stage."
  type        = string
}

variable "requests_per_5_minutes" {
  description = "What one address may send in five minutes."
  type        = number
}

variable "log_retention_days" {
  description = "Days that logs are kept."
  type        = number
}

variable "operations_key_arn" {
  description = "KMS key of the logs."
  type        = string
}
