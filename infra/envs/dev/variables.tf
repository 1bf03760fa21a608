variable "region" {
  description = "Where the environment is."
  type        = string
}

variable "second_region" {
  description = "Where its copies are."
  type        = string
}

variable "artifact_bucket" {
  description = "Bucket of the functions' zips; said by the deploy script."
  type        = string
}

variable "artifact_keys" {
  description = "Where each function's zip is; said by the deploy script."
  type        = map(string)
}

variable "trusted_root_keys" {
  description = "Public root keys, as `loglineos keys` prints them: HEX or HEX@POSITION."
  type        = list(string)
}

variable "trusted_runtime_keys" {
  description = "Public runtime keys, likewise."
  type        = list(string)
}

variable "override_public_key" {
  description = "Public key whose signature passes the quota."
  type        = string
  default     = null
}

variable "login_password_version" {
  description = "Counts up to draw new passwords for the database's logins."
  type        = number
  default     = 1
}

variable "restarts" {
  description = "One higher, and every container is a new one: after a secret has changed that functions keep."
  type        = number
  default     = 0
}

variable "reserved_concurrency" {
  description = "Containers kept for functions, and at most, by name; 0 stops one. AWS keeps 100 of an account's for all others."
  type        = map(number)
  default     = {}
}

variable "enable_schedules" {
  description = "Whether the schedules start anything: false while the ledger must rest."
  type        = bool
  default     = true
}

variable "alarm_emails" {
  description = "Who hears of alarms."
  type        = list(string)
  default     = []
}

variable "jwt" {
  description = "Issuer whose JWTs count; null for API tokens alone. Its keys are in jwks (JSON), or fetched: enable_nat."
  type = object({
    issuer       = string
    audience     = string
    jwks_uri     = optional(string)
    jwks         = optional(string)
    user_claim   = optional(string)
    tenant_claim = optional(string)
    scopes_claim = optional(string)
  })
  default = null
}

variable "cors_origins" {
  description = "Origins whose pages may ask the API."
  type        = list(string)
  default     = []
}

variable "enable_nat" {
  description = "A way to the internet: for model providers and for the issuer of JWTs."
  type        = bool
  default     = false
}

variable "enable_providers" {
  description = "A secret for the keys of model providers."
  type        = bool
  default     = false
}

variable "rds_ca_file" {
  description = "Certificate authorities of RDS in this region, PEM."
  type        = string
  default     = "rds-ca.pem"
}
