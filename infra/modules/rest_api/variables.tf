variable "name" {
  description = "Name of the API."
  type        = string
}

variable "stage" {
  description = "Name of the stage."
  type        = string
}

variable "api" {
  description = "The function behind all routes but the stream."
  type        = object({ name = string, alias = string, invoke_arn = string })
}

variable "stream" {
  description = "The function behind the stream."
  type        = object({ name = string, alias = string, invoke_arn = string })
}

variable "authorizer" {
  description = "Who says who calls."
  type        = object({ name = string, alias = string, invoke_arn = string })
}

variable "throttling" {
  description = "Requests a second, and at once, over all callers."
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
