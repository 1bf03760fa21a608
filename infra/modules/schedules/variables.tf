variable "name" {
  description = "Name of the group, and beginning of the role's."
  type        = string
}

variable "is_enabled" {
  description = "Whether anything is started."
  type        = bool
}

variable "targets" {
  description = "Functions by name: how often, which alias, where failures go."
  type        = map(object({ rate = string, alias_arn = string, dead_letters_arn = string }))
}
