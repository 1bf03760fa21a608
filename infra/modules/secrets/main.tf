# The passwords of the database's logins: drawn anew whenever `login_password_version` changes, written to Secrets
# Manager and to nothing else. The signing keys are not made here: `infra/bootstrap` has their places, and
# `loglineos keys` fills them.

locals {
  logins = toset(["app", "seeder", "auditor"])
}

ephemeral "aws_secretsmanager_random_password" "login" {
  for_each = local.logins

  password_length     = 40
  exclude_punctuation = true
}

resource "aws_secretsmanager_secret" "login" {
  for_each = local.logins

  name                    = "${var.name}/logins/${each.key}"
  description             = "Password of the database login loglineos_${each.key}"
  kms_key_id              = var.secrets_key_arn
  recovery_window_in_days = 30
}

resource "aws_secretsmanager_secret_version" "login" {
  for_each = local.logins

  secret_id = aws_secretsmanager_secret.login[each.key].id
  # `username` is for RDS Proxy.
  secret_string_wo = jsonencode({
    username = "loglineos_${each.key}"
    password = ephemeral.aws_secretsmanager_random_password.login[each.key].random_password
  })
  secret_string_wo_version = var.login_password_version
}

# Keys of model providers, by the names that provider rows say; an operator puts them there.
resource "aws_secretsmanager_secret" "providers" {
  count = var.enable_providers ? 1 : 0

  name                    = "${var.name}/providers"
  description             = "API keys of model providers"
  kms_key_id              = var.secrets_key_arn
  recovery_window_in_days = 30
}
