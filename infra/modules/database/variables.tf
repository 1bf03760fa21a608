variable "name" {
  description = "Identifier of the instance, and beginning of every name."
  type        = string
}

variable "engine_version" {
  description = "Major version of Postgres; minor ones come by themselves."
  type        = string
}

variable "instance_class" {
  description = "Size of the instance, for instance db.t4g.micro."
  type        = string
}

variable "storage_gb" {
  description = "GiB to begin with."
  type        = number
}

variable "storage_gb_max" {
  description = "GiB to which the storage grows by itself."
  type        = number
}

variable "multi_az" {
  description = "A standby in the other zone."
  type        = bool
}

variable "deletion_protection" {
  description = "Whether destroying the instance is refused."
  type        = bool
}

variable "backup_retention_days" {
  description = "Days to any moment of which the database can be restored."
  type        = number

  validation {
    condition     = var.backup_retention_days >= 14 && var.backup_retention_days <= 35
    error_message = "Between 14 and 35 days."
  }
}

variable "database_insights_mode" {
  description = "standard or advanced."
  type        = string
}

variable "enable_proxy" {
  description = "RDS Proxy between functions and database."
  type        = bool
}

variable "login_secret_arns" {
  description = "Secrets of the logins that go through the proxy, by name."
  type        = map(string)
}

variable "subnet_ids" {
  description = "Private subnets, in two zones."
  type        = list(string)
}

variable "security_group_id" {
  description = "Who may speak to it."
  type        = string
}

variable "secrets_key_arn" {
  description = "KMS key of the secrets."
  type        = string
}

variable "operations_key_arn" {
  description = "KMS key of the logs."
  type        = string
}

variable "log_retention_days" {
  description = "Days that logs are kept."
  type        = number
}
