# What has to be there before an environment: where Terraform keeps its state, where the functions' zips are, and the places
# of the signing keys, which outlive everything else. Applied once for each environment, by hand; its own state stays in a
# local file, and all of it can be imported again.

terraform {
  required_version = ">= 1.11"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = "~> 6.25"
    }
  }
}

provider "aws" {
  region = var.region

  default_tags {
    tags = {
      Project     = "loglineos"
      Environment = var.environment
      ManagedBy   = "infra/bootstrap"
    }
  }
}

data "aws_caller_identity" "current" {}

data "aws_partition" "current" {}

locals {
  name    = "loglineos-${var.environment}"
  buckets = toset(["state", "artifacts"])
}

# ---- state and zips

resource "aws_s3_bucket" "this" {
  for_each = local.buckets

  bucket = "${local.name}-${each.key}-${data.aws_caller_identity.current.account_id}-${var.region}"

  lifecycle {
    prevent_destroy = true
  }
}

resource "aws_s3_bucket_versioning" "this" {
  for_each = local.buckets

  bucket = aws_s3_bucket.this[each.key].id

  versioning_configuration {
    status = "Enabled"
  }
}

resource "aws_s3_bucket_server_side_encryption_configuration" "this" {
  for_each = local.buckets

  bucket = aws_s3_bucket.this[each.key].id

  rule {
    bucket_key_enabled = true

    apply_server_side_encryption_by_default {
      sse_algorithm = "aws:kms"
    }
  }
}

resource "aws_s3_bucket_public_access_block" "this" {
  for_each = local.buckets

  bucket                  = aws_s3_bucket.this[each.key].id
  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

resource "aws_s3_bucket_policy" "this" {
  for_each = local.buckets

  bucket = aws_s3_bucket.this[each.key].id
  policy = data.aws_iam_policy_document.bucket[each.key].json
}

data "aws_iam_policy_document" "bucket" {
  for_each = local.buckets

  statement {
    sid       = "TlsOnly"
    effect    = "Deny"
    actions   = ["s3:*"]
    resources = [aws_s3_bucket.this[each.key].arn, "${aws_s3_bucket.this[each.key].arn}/*"]

    principals {
      type        = "*"
      identifiers = ["*"]
    }

    condition {
      test     = "Bool"
      variable = "aws:SecureTransport"
      values   = ["false"]
    }
  }
}

# Zips are named by their content and stay, so that a version can be made again; only replaced bytes go.
resource "aws_s3_bucket_lifecycle_configuration" "this" {
  for_each = local.buckets

  bucket = aws_s3_bucket.this[each.key].id

  rule {
    id     = "former-versions"
    status = "Enabled"

    filter {}

    noncurrent_version_expiration {
      noncurrent_days = 365
    }

    abort_incomplete_multipart_upload {
      days_after_initiation = 7
    }
  }
}

# ---- secrets: the key, and empty places that `loglineos keys` fills. No value ever passes Terraform.

resource "aws_kms_key" "secrets" {
  description             = "${local.name}: secrets"
  enable_key_rotation     = true
  deletion_window_in_days = 30

  lifecycle {
    prevent_destroy = true
  }
}

resource "aws_kms_alias" "secrets" {
  name          = "alias/${local.name}-secrets"
  target_key_id = aws_kms_key.secrets.key_id
}

resource "aws_kms_key" "secrets_second_region" {
  region = var.second_region

  description             = "${local.name}: copies of the signing keys"
  enable_key_rotation     = true
  deletion_window_in_days = 30

  lifecycle {
    prevent_destroy = true
  }
}

# With a copy in the second region: a ledger that is restored there is of no use to who cannot sign for it.
resource "aws_secretsmanager_secret" "keys" {
  for_each = {
    root     = "Signs kernels, manifest and policies of the system; read by loglineos-seed alone"
    runtime  = "Signs events; and the master key of the tenants' encryption"
    override = "Signs what may pass a quota; read by no function"
  }

  name                    = "${local.name}/keys/${each.key}"
  description             = each.value
  kms_key_id              = aws_kms_key.secrets.arn
  recovery_window_in_days = 30

  replica {
    region     = var.second_region
    kms_key_id = aws_kms_key.secrets_second_region.arn
  }

  lifecycle {
    prevent_destroy = true
  }
}

# ---- settings of the account in this region

# The access logs of API Gateway are written by this role.
resource "aws_api_gateway_account" "this" {
  cloudwatch_role_arn = aws_iam_role.gateway_logs.arn

  depends_on = [aws_iam_role_policy_attachment.gateway_logs]
}

resource "aws_iam_role" "gateway_logs" {
  name               = "${local.name}-gateway-logs"
  assume_role_policy = data.aws_iam_policy_document.gateway_trust.json
}

data "aws_iam_policy_document" "gateway_trust" {
  statement {
    actions = ["sts:AssumeRole"]

    principals {
      type        = "Service"
      identifiers = ["apigateway.amazonaws.com"]
    }
  }
}

# AWS's own: API Gateway looks whether it is this one.
resource "aws_iam_role_policy_attachment" "gateway_logs" {
  role       = aws_iam_role.gateway_logs.name
  policy_arn = "arn:${data.aws_partition.current.partition}:iam::aws:policy/service-role/AmazonAPIGatewayPushToCloudWatchLogs"
}

# AWS Backup copies a DynamoDB table to another region only where it manages the backups itself.
resource "aws_backup_region_settings" "this" {
  for_each = toset([var.region, var.second_region])

  region = each.value

  resource_type_opt_in_preference = {
    DynamoDB = true
    RDS      = true
  }

  resource_type_management_preference = {
    DynamoDB = true
  }
}
