variable "name" {
  description = "Beginning of every name."
  type        = string
}

variable "environment" {
  description = "Dimension of the system's own metrics."
  type        = string
}

variable "functions" {
  description = "By name: their timeout, and whether they work until shortly before it."
  type        = map(object({ timeout_s = number, ends_itself = bool }))
}

variable "dead_letters" {
  description = "Queues of the failures of those that a schedule starts, by the function's name."
  type        = map(string)
}

variable "rest_api_name" {
  type = string
}

variable "websocket_api_id" {
  type = string
}

variable "stage" {
  description = "Of both APIs."
  type        = string
}

variable "database_identifier" {
  type = string
}

variable "database_connections" {
  description = "What the instance takes at most."
  type        = number
}

variable "database_storage_gb" {
  description = "GiB to begin with."
  type        = number
}

variable "backup_vault_name" {
  type = string
}

variable "web_acl_name" {
  type = string
}

variable "alarm_emails" {
  description = "Who hears of alarms."
  type        = list(string)
}

variable "operations_key_id" {
  description = "KMS key of the topic."
  type        = string
}
