# Small and cheap: one zone works, untrusted code runs beside the secrets, and what is lost here is no loss.
module "loglineos" {
  source = "../../modules/loglineos"

  environment   = "dev"
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

  cidr_block              = "10.40.0.0/16"
  endpoint_zones          = 1
  enable_sandbox_function = false
  # The roles work around the clock: what they have is what this environment costs.
  memory_mb = {
    loglineos-observer        = 256
    loglineos-request-worker  = 512
    loglineos-policy-agent    = 512
    loglineos-timeline-reader = 256
    loglineos-timeline-sender = 256
    loglineos-auditor         = 512
  }
  reserved_concurrency   = var.reserved_concurrency
  throttling             = { rate = 50, burst = 100 }
  requests_per_5_minutes = 2000

  postgres_version        = "18"
  database_class          = "db.t4g.micro"
  database_connections    = 80
  database_storage_gb     = 20
  database_storage_gb_max = 50
  database_insights_mode  = "standard"
  enable_database_proxy   = false
  multi_az                = false
  deletion_protection     = false

  point_in_time_days          = 14
  daily_backup_days           = 7
  backup_lock_changeable_days = null
  log_retention_days          = 14
}
