# A standby in another zone, copies in another region, everything protected, untrusted code in a function of its own.
module "loglineos" {
  source = "../../modules/loglineos"

  environment   = "prod"
  second_region = var.second_region

  artifact_bucket = var.artifact_bucket
  artifact_keys   = var.artifact_keys
  runtime         = "nodejs24.x"
  rds_ca_file     = var.rds_ca_file

  trusted_root_keys      = var.trusted_root_keys
  trusted_runtime_keys   = var.trusted_runtime_keys
  override_public_key    = var.override_public_key
  login_password_version = var.login_password_version
  restarts               = var.restarts

  jwt              = var.jwt
  cors_origins     = var.cors_origins
  enable_nat       = var.enable_nat
  enable_schedules = var.enable_schedules
  enable_providers = var.enable_providers
  alarm_emails     = var.alarm_emails

  cidr_block              = "10.41.0.0/16"
  endpoint_zones          = 2
  enable_sandbox_function = true
  memory_mb               = {}
  reserved_concurrency    = var.reserved_concurrency
  throttling              = { rate = 500, burst = 1000 }
  requests_per_5_minutes  = 10000

  postgres_version        = "18"
  database_class          = "db.m7g.large"
  database_connections    = 800
  database_storage_gb     = 100
  database_storage_gb_max = 1000
  database_insights_mode  = "advanced"
  enable_database_proxy   = false
  multi_az                = true
  deletion_protection     = true

  point_in_time_days = 35
  daily_backup_days  = 90
  # Governance. 3 or more makes it compliance: after so many days the vaults can never be emptied before their time.
  backup_lock_changeable_days = null
  log_retention_days          = 400
}
