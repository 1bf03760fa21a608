# Copies that outlive a mistake, an administrator and a region: any moment of the last weeks in two regions (RDS itself),
# and daily ones in vaults that nobody can empty before their time.

resource "aws_kms_key" "second_region" {
  region = var.second_region

  description             = "${var.name}: backups in ${var.second_region}"
  enable_key_rotation     = true
  deletion_window_in_days = 30

  lifecycle {
    prevent_destroy = true
  }
}

resource "aws_kms_alias" "second_region" {
  region = var.second_region

  name          = "alias/${var.name}-backup"
  target_key_id = aws_kms_key.second_region.key_id
}

resource "aws_kms_key" "vault" {
  description             = "${var.name}: the backup vault"
  enable_key_rotation     = true
  deletion_window_in_days = 30

  lifecycle {
    prevent_destroy = true
  }
}

resource "aws_kms_alias" "vault" {
  name          = "alias/${var.name}-vault"
  target_key_id = aws_kms_key.vault.key_id
}

resource "aws_db_instance_automated_backups_replication" "second_region" {
  region = var.second_region

  source_db_instance_arn = var.database_arn
  kms_key_id             = aws_kms_key.second_region.arn
  retention_period       = var.point_in_time_days
}

resource "aws_backup_vault" "this" {
  name        = var.name
  kms_key_arn = aws_kms_key.vault.arn
}

resource "aws_backup_vault" "second_region" {
  region = var.second_region

  name        = var.name
  kms_key_arn = aws_kms_key.second_region.arn
}

# Without `changeable_for_days` somebody with the right to can take the lock away (governance); with it nobody can after
# these days, not even AWS (compliance).
resource "aws_backup_vault_lock_configuration" "this" {
  backup_vault_name   = aws_backup_vault.this.name
  min_retention_days  = var.daily_days
  max_retention_days  = 400
  changeable_for_days = var.lock_changeable_days
}

resource "aws_backup_vault_lock_configuration" "second_region" {
  region = var.second_region

  backup_vault_name   = aws_backup_vault.second_region.name
  min_retention_days  = var.daily_days
  max_retention_days  = 400
  changeable_for_days = var.lock_changeable_days
}

resource "aws_backup_plan" "this" {
  name = var.name

  rule {
    rule_name         = "daily"
    target_vault_name = aws_backup_vault.this.name
    # After RDS's own window.
    schedule          = "cron(30 3 * * ? *)"
    start_window      = 60
    completion_window = 480

    lifecycle {
      delete_after = var.daily_days
    }

    copy_action {
      destination_vault_arn = aws_backup_vault.second_region.arn

      lifecycle {
        delete_after = var.daily_days
      }
    }
  }
}

resource "aws_backup_selection" "this" {
  name         = var.name
  plan_id      = aws_backup_plan.this.id
  iam_role_arn = aws_iam_role.this.arn
  resources    = [var.database_arn, var.audit_table_arn]
}

resource "aws_iam_role" "this" {
  name               = "${var.name}-backup"
  assume_role_policy = data.aws_iam_policy_document.trust.json
}

data "aws_caller_identity" "current" {}

data "aws_iam_policy_document" "trust" {
  statement {
    actions = ["sts:AssumeRole"]

    principals {
      type        = "Service"
      identifiers = ["backup.amazonaws.com"]
    }

    condition {
      test     = "StringEquals"
      variable = "aws:SourceAccount"
      values   = [data.aws_caller_identity.current.account_id]
    }
  }
}

# AWS's own: what a backup needs changes with the services. It can make copies and not restore or delete.
resource "aws_iam_role_policy_attachment" "this" {
  role       = aws_iam_role.this.name
  policy_arn = "arn:${data.aws_partition.current.partition}:iam::aws:policy/service-role/AWSBackupServiceRolePolicyForBackup"
}

data "aws_partition" "current" {}
