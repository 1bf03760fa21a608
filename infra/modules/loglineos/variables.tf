variable "environment" {
  description = "Name of the environment: part of every name, stage of the APIs, dimension of the metrics."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9]{1,15}$", var.environment))
    error_message = "2 to 16 small letters and digits."
  }
}

# ---- what is deployed

variable "artifact_bucket" {
  description = "Bucket of the functions' zips."
  type        = string
}

variable "artifact_keys" {
  description = "Where in the bucket each function's zip is, by the function's name; the key says the content."
  type        = map(string)
}

variable "runtime" {
  description = "Identifier of the Lambda runtime."
  type        = string
}

variable "memory_mb" {
  description = "MiB of functions that are to have others than in functions.tf, by name."
  type        = map(number)
}

variable "enable_schedules" {
  description = "Whether the schedules start anything: false while the ledger must rest."
  type        = bool
}

variable "reserved_concurrency" {
  description = "Containers kept for functions, and at most, by name. A fresh account has too few to keep any."
  type        = map(number)
}

variable "rds_ca_file" {
  description = "Certificate authorities of RDS in this region, PEM, fetched from truststore.pki.rds.amazonaws.com."
  type        = string
}

# ---- whose signatures count

variable "trusted_root_keys" {
  description = "Public root keys, 64 hex digits each; HEX@POSITION counts for rows up to that position only."
  type        = list(string)

  validation {
    condition = length(var.trusted_root_keys) > 0 && alltrue([
      for key in var.trusted_root_keys : can(regex("^[0-9a-f]{64}(@[0-9]{1,16})?$", key))
    ])
    error_message = "At least one key, each 64 hex digits, with or without @POSITION."
  }
}

variable "trusted_runtime_keys" {
  description = "Public runtime keys, as the root keys."
  type        = list(string)

  validation {
    condition = length(var.trusted_runtime_keys) > 0 && alltrue([
      for key in var.trusted_runtime_keys : can(regex("^[0-9a-f]{64}(@[0-9]{1,16})?$", key))
    ])
    error_message = "At least one key, each 64 hex digits, with or without @POSITION."
  }
}

variable "override_public_key" {
  description = "Public key whose signature passes the quota; null for none."
  type        = string

  validation {
    condition     = var.override_public_key == null || can(regex("^[0-9a-f]{64}$", var.override_public_key))
    error_message = "64 hex digits."
  }
}

variable "login_password_version" {
  description = "Counts up to draw new passwords for the database's logins."
  type        = number
}

variable "restarts" {
  description = "How often every container was to be a new one; it stands in the functions' descriptions, so each is a new version."
  type        = number
  default     = 0
}

# ---- who may ask

variable "jwt" {
  description = "Issuer whose JWTs count; null for API tokens alone. Its keys are in jwks (JSON), or fetched over the internet: enable_nat."
  type = object({
    issuer       = string
    audience     = string
    jwks_uri     = optional(string)
    jwks         = optional(string)
    user_claim   = optional(string)
    tenant_claim = optional(string)
    scopes_claim = optional(string)
  })

  validation {
    condition     = var.jwt == null || var.enable_nat || try(var.jwt.jwks, null) != null
    error_message = "An issuer is asked for its keys with enable_nat only; else say them in jwks."
  }
}

variable "cors_origins" {
  description = "Origins whose pages may ask the API."
  type        = list(string)
}

variable "throttling" {
  description = "Requests a second, and at once, over all callers of an API."
  type        = object({ rate = number, burst = number })
}

variable "requests_per_5_minutes" {
  description = "What one address may send in five minutes."
  type        = number
}

# ---- what it stands on

variable "cidr_block" {
  description = "Addresses of the VPC."
  type        = string
}

variable "enable_nat" {
  description = "A way to the internet for the functions beside the database."
  type        = bool
}

variable "endpoint_zones" {
  description = "In how many of the two zones AWS's services have endpoints."
  type        = number
}

variable "enable_sandbox_function" {
  description = "Untrusted code runs in loglineos-sandbox and not in children of the functions that know secrets."
  type        = bool
}

variable "enable_providers" {
  description = "A secret for the keys of model providers."
  type        = bool

  validation {
    condition     = !var.enable_providers || var.enable_nat
    error_message = "Model providers are reached with enable_nat only."
  }
}

variable "postgres_version" {
  description = "Major version of Postgres."
  type        = string
}

variable "database_class" {
  description = "Size of the instance."
  type        = string
}

variable "database_connections" {
  description = "Connections that an instance of this size takes, for the alarm."
  type        = number
}

variable "database_storage_gb" {
  description = "GiB to begin with."
  type        = number
}

variable "database_storage_gb_max" {
  description = "GiB to which the storage grows by itself."
  type        = number
}

variable "database_insights_mode" {
  description = "standard or advanced."
  type        = string
}

variable "enable_database_proxy" {
  description = "RDS Proxy between functions and database."
  type        = bool
}

variable "multi_az" {
  description = "A standby of the database in the other zone."
  type        = bool
}

variable "deletion_protection" {
  description = "Whether destroying the database is refused."
  type        = bool
}

variable "point_in_time_days" {
  description = "Days to any moment of which the database can be restored, in both regions."
  type        = number
}

variable "second_region" {
  description = "Where the copies are."
  type        = string
}

variable "daily_backup_days" {
  description = "Days that daily copies are kept, and cannot be deleted."
  type        = number
}

variable "backup_lock_changeable_days" {
  description = "Days after which the vaults' lock is for ever; null for one that can be taken away."
  type        = number
}

# ---- who is told

variable "log_retention_days" {
  description = "Days that logs are kept."
  type        = number
}

variable "alarm_emails" {
  description = "Who hears of alarms."
  type        = list(string)
}
