# One environment of LogLineOS, whole. The functions' names are fixed, so an account has one environment in a region.

data "aws_region" "current" {}

data "aws_caller_identity" "current" {}

data "aws_partition" "current" {}

locals {
  name = "loglineos-${var.environment}"

  # Of the functions that others invoke: by their names, so that none waits for another.
  function_arns = join(":", [
    "arn", data.aws_partition.current.partition, "lambda", data.aws_region.current.region,
    data.aws_caller_identity.current.account_id, "function",
  ])
  reader_arn  = "${local.function_arns}:loglineos-timeline-reader:live"
  sandbox_arn = "${local.function_arns}:loglineos-sandbox:live"

  secret_arns = {
    root      = data.aws_secretsmanager_secret.keys["root"].arn
    runtime   = data.aws_secretsmanager_secret.keys["runtime"].arn
    app       = module.secrets.login_secret_arns.app
    seeder    = module.secrets.login_secret_arns.seeder
    auditor   = module.secrets.login_secret_arns.auditor
    master    = module.database.master_secret_arn
    providers = module.secrets.provider_secret_arn
  }

  database_users = {
    app     = "loglineos_app"
    seeder  = "loglineos_seeder"
    auditor = "loglineos_auditor"
    master  = module.database.master_user
  }

  trusted_root_keys    = join(",", var.trusted_root_keys)
  trusted_runtime_keys = join(",", var.trusted_runtime_keys)
  sandbox_function     = var.enable_sandbox_function ? local.sandbox_arn : null
  cors_origins         = length(var.cors_origins) == 0 ? null : join(",", var.cors_origins)
  # All null where no JWT counts.
  jwt = {
    issuer       = try(var.jwt.issuer, null)
    audience     = try(var.jwt.audience, null)
    jwks_uri     = try(var.jwt.jwks_uri, null)
    jwks         = try(var.jwt.jwks, null)
    user_claim   = try(var.jwt.user_claim, null)
    tenant_claim = try(var.jwt.tenant_claim, null)
    scopes_claim = try(var.jwt.scopes_claim, null)
  }
}

# ---- what `infra/bootstrap` made

data "aws_kms_alias" "secrets" {
  name = "alias/${local.name}-secrets"
}

data "aws_secretsmanager_secret" "keys" {
  for_each = toset(["root", "runtime"])

  name = "${local.name}/keys/${each.key}"
}

# ---- logs and alarms

resource "aws_kms_key" "operations" {
  description             = "${local.name}: logs and alarms"
  enable_key_rotation     = true
  deletion_window_in_days = 30
  policy                  = data.aws_iam_policy_document.operations_key.json
}

resource "aws_kms_alias" "operations" {
  name          = "alias/${local.name}-operations"
  target_key_id = aws_kms_key.operations.key_id
}

# In the policy of a key, `*` is the key itself.
data "aws_iam_policy_document" "operations_key" {
  statement {
    sid       = "Account"
    actions   = ["kms:*"]
    resources = ["*"]

    principals {
      type        = "AWS"
      identifiers = ["arn:${data.aws_partition.current.partition}:iam::${data.aws_caller_identity.current.account_id}:root"]
    }
  }

  statement {
    sid       = "Logs"
    actions   = ["kms:Decrypt", "kms:DescribeKey", "kms:Encrypt", "kms:GenerateDataKey*", "kms:ReEncrypt*"]
    resources = ["*"]

    principals {
      type        = "Service"
      identifiers = ["logs.${data.aws_region.current.region}.amazonaws.com"]
    }

    condition {
      test     = "ArnLike"
      variable = "kms:EncryptionContext:aws:logs:arn"
      values = [
        "arn:${data.aws_partition.current.partition}:logs:${data.aws_region.current.region}:${data.aws_caller_identity.current.account_id}:*",
      ]
    }
  }

  statement {
    sid       = "Alarms"
    actions   = ["kms:Decrypt", "kms:GenerateDataKey*"]
    resources = ["*"]

    principals {
      type        = "Service"
      identifiers = ["cloudwatch.amazonaws.com"]
    }
  }
}

# ---- the parts

module "network" {
  source = "../network"

  name                   = local.name
  cidr_block             = var.cidr_block
  enable_nat             = var.enable_nat
  endpoint_zones         = var.endpoint_zones
  enable_lambda_endpoint = var.enable_sandbox_function
  artifact_bucket        = var.artifact_bucket
}

module "secrets" {
  source = "../secrets"

  name                   = local.name
  secrets_key_arn        = data.aws_kms_alias.secrets.target_key_arn
  login_password_version = var.login_password_version
  enable_providers       = var.enable_providers
}

module "database" {
  source = "../database"

  name                   = local.name
  engine_version         = var.postgres_version
  instance_class         = var.database_class
  storage_gb             = var.database_storage_gb
  storage_gb_max         = var.database_storage_gb_max
  multi_az               = var.multi_az
  deletion_protection    = var.deletion_protection
  backup_retention_days  = var.point_in_time_days
  database_insights_mode = var.database_insights_mode
  enable_proxy           = var.enable_database_proxy
  login_secret_arns      = module.secrets.login_secret_arns
  subnet_ids             = module.network.private_subnet_ids
  security_group_id      = module.network.database_security_group_id
  secrets_key_arn        = data.aws_kms_alias.secrets.target_key_arn
  operations_key_arn     = aws_kms_key.operations.arn
  log_retention_days     = var.log_retention_days
}

module "tables" {
  source = "../tables"

  name = local.name
}

# The authorities of RDS, which are not among Node's own: a file that an operator fetched from AWS, as a layer.
data "archive_file" "rds_ca" {
  type        = "zip"
  output_path = "${path.root}/.terraform/rds-ca.zip"

  source {
    filename = "rds-ca.pem"
    content  = file(var.rds_ca_file)
  }
}

resource "aws_lambda_layer_version" "rds_ca" {
  layer_name       = "${local.name}-rds-ca"
  description      = "Certificate authorities of RDS"
  filename         = data.archive_file.rds_ca.output_path
  source_code_hash = data.archive_file.rds_ca.output_base64sha256
}

module "function" {
  source   = "../function"
  for_each = local.functions

  name            = each.key
  description     = var.restarts == 0 ? each.value.description : "${each.value.description} (${var.restarts})"
  role_prefix     = local.name
  runtime         = var.runtime
  artifact_bucket = var.artifact_bucket
  artifact_key    = var.artifact_keys[each.key]

  memory_mb            = lookup(var.memory_mb, each.key, each.value.memory_mb)
  timeout_s            = each.value.timeout_s
  reserved_concurrency = lookup(var.reserved_concurrency, each.key, null)
  is_asynchronous      = try(each.value.rate, null) != null
  is_bare              = try(each.value.is_bare, false)

  environment = {
    for name, value in merge(
      try(each.value.environment, {}),
      try(each.value.database, null) == null ? {} : {
        # A migration locks, and sets roles up: it goes past the proxy.
        DATABASE_HOST       = each.value.database == "master" ? module.database.address : module.database.endpoint_for_functions
        DATABASE_NAME       = module.database.name
        DATABASE_USER       = local.database_users[each.value.database]
        DATABASE_SECRET_ARN = local.secret_arns[each.value.database]
        DATABASE_CA_FILE    = "/opt/rds-ca.pem"
      },
    ) : name => value if value != null
  }

  network = try(each.value.database, null) == null ? null : {
    subnet_ids         = module.network.private_subnet_ids
    security_group_ids = [module.network.functions_security_group_id]
  }
  layer_arns = try(each.value.database, null) == null ? [] : [aws_lambda_layer_version.rds_ca.arn]

  secrets_key_arn = data.aws_kms_alias.secrets.target_key_arn
  secret_arns = [
    for secret in concat(try([each.value.database], []), try(each.value.secrets, [])) : local.secret_arns[secret]
    if secret != "providers" || var.enable_providers
  ]
  permissions = [
    for permission in try(each.value.permissions, []) : {
      sid       = local.permissions[permission].sid
      actions   = local.permissions[permission].actions
      resources = local.permissions[permission].resources
      condition = try(local.permissions[permission].condition, null)
    }
    if permission != "invoke_sandbox" || var.enable_sandbox_function
  ]

  log_retention_days = var.log_retention_days
  operations_key_arn = aws_kms_key.operations.arn
}

module "rest_api" {
  source = "../rest_api"

  name               = local.name
  stage              = var.environment
  api                = module.function["loglineos-api"]
  stream             = module.function["loglineos-api-stream"]
  authorizer         = module.function["loglineos-authorizer"]
  throttling         = var.throttling
  log_retention_days = var.log_retention_days
  operations_key_arn = aws_kms_key.operations.arn
}

module "websocket_api" {
  source = "../websocket_api"

  name               = local.name
  stage              = var.environment
  authorizer         = module.function["loglineos-authorizer"]
  timeline           = module.function["loglineos-timeline"]
  throttling         = var.throttling
  log_retention_days = var.log_retention_days
  operations_key_arn = aws_kms_key.operations.arn
}

module "waf" {
  source = "../waf"

  name                   = local.name
  stage_arn              = module.rest_api.stage_arn
  requests_per_5_minutes = var.requests_per_5_minutes
  log_retention_days     = var.log_retention_days
  operations_key_arn     = aws_kms_key.operations.arn
}

module "schedules" {
  source = "../schedules"

  name       = local.name
  is_enabled = var.enable_schedules
  targets = {
    for name, function in local.functions : name => {
      rate             = function.rate
      alias_arn        = module.function[name].alias_arn
      dead_letters_arn = module.function[name].dead_letters.arn
    } if try(function.rate, null) != null
  }
}

module "observability" {
  source = "../observability"

  name        = local.name
  environment = var.environment
  functions = {
    for name, function in local.functions : name => {
      timeout_s   = function.timeout_s
      ends_itself = try(function.ends_itself, false)
    }
  }
  dead_letters = {
    for name, function in local.functions : name => module.function[name].dead_letters.name
    if try(function.rate, null) != null
  }
  rest_api_name        = module.rest_api.api_name
  websocket_api_id     = module.websocket_api.api_id
  stage                = var.environment
  database_identifier  = module.database.identifier
  database_connections = var.database_connections
  database_storage_gb  = var.database_storage_gb
  backup_vault_name    = module.backup.vault_name
  web_acl_name         = module.waf.web_acl_name
  alarm_emails         = var.alarm_emails
  operations_key_id    = aws_kms_key.operations.key_id
}

module "backup" {
  source = "../backup"

  name                 = local.name
  second_region        = var.second_region
  database_arn         = module.database.arn
  audit_table_arn      = module.tables.audit_table_arn
  point_in_time_days   = var.point_in_time_days
  daily_days           = var.daily_backup_days
  lock_changeable_days = var.backup_lock_changeable_days
}
