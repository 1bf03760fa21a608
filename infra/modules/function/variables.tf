variable "name" {
  description = "The function's name, as its bundle is called."
  type        = string
}

variable "description" {
  description = "What it does."
  type        = string
}

variable "role_prefix" {
  description = "Beginning of the role's name: roles are an account's, functions a region's."
  type        = string
}

variable "runtime" {
  description = "Identifier of the Lambda runtime."
  type        = string
}

variable "artifact_bucket" {
  description = "Where the zip is."
  type        = string
}

variable "artifact_key" {
  description = "Which zip, by its content."
  type        = string
}

variable "layer_arns" {
  description = "Layers that it is given."
  type        = list(string)
}

variable "memory_mb" {
  description = "MiB; the share of a processor goes with it."
  type        = number
}

variable "timeout_s" {
  description = "Seconds after which Lambda ends it."
  type        = number
}

variable "reserved_concurrency" {
  description = "Containers kept for it, and at most; null for what the account has left."
  type        = number
}

variable "environment" {
  description = "Variables; never a secret."
  type        = map(string)
}

variable "network" {
  description = "Where it stands in the VPC; null for outside."
  type        = object({ subnet_ids = list(string), security_group_ids = list(string) })
}

variable "secret_arns" {
  description = "Secrets that it may read."
  type        = list(string)
}

variable "secrets_key_arn" {
  description = "KMS key of the secrets."
  type        = string
}

variable "permissions" {
  description = "What else its role may do."
  type = list(object({
    sid       = string
    actions   = list(string)
    resources = list(string)
    condition = optional(object({ test = string, variable = string, values = list(string) }))
  }))
}

variable "is_asynchronous" {
  description = "Started by a schedule: failures go to a queue of its own."
  type        = bool
}

variable "is_bare" {
  description = "A role without any right: no log, no trace, nothing."
  type        = bool
}

variable "log_retention_days" {
  description = "Days that its log is kept."
  type        = number
}

variable "operations_key_arn" {
  description = "KMS key of the logs."
  type        = string
}
