variable "name" {
  description = "Beginning of every name."
  type        = string
}

variable "stage" {
  description = "Name of the stage."
  type        = string
}

variable "authorizer" {
  description = "Who says who connects."
  type        = object({ name = string, alias = string, invoke_arn = string })
}

variable "timeline" {
  description = "Who notes what clients say."
  type        = object({ name = string, alias = string, invoke_arn = string })
}

variable "throttling" {
  description = "Messages a second, and at once."
  type        = object({ rate = number, burst = number })
}

variable "log_retention_days" {
  description = "Days that logs are kept."
  type        = number
}

variable "operations_key_arn" {
  description = "KMS key of the logs."
  type        = string
}
