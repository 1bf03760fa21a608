variable "name" {
  description = "Beginning of every name."
  type        = string
}

variable "secrets_key_arn" {
  description = "KMS key that encrypts them."
  type        = string
}

variable "login_password_version" {
  description = "Counts up to draw new passwords; the next migration sets them."
  type        = number
}

variable "enable_providers" {
  description = "Whether there is a secret for the keys of model providers."
  type        = bool
}
