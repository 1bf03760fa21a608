variable "name" {
  description = "Name of vaults and plan."
  type        = string
}

variable "second_region" {
  description = "Where the copies are."
  type        = string
}

variable "database_arn" {
  description = "The instance."
  type        = string
}

variable "audit_table_arn" {
  description = "The auditor's table."
  type        = string
}

variable "point_in_time_days" {
  description = "Days to any moment of which the second region can restore."
  type        = number
}

variable "daily_days" {
  description = "Days that daily copies are kept."
  type        = number
}

variable "lock_changeable_days" {
  description = "Days after which the vaults' lock is for ever, 3 at least; null for one that can be taken away."
  type        = number
}
