# What an operator is told, and where he looks. Every alarm says in its description what to do about it; the runbook in
# `infra/README.md` has the rest.

locals {
  namespace = "LogLineOS"
  roles     = toset(["observer", "request-worker", "policy-agent"])

  # What runs until its time is up is late when it is cut off; all else, when it comes near.
  duration_limits_ms = {
    for name, function in var.functions : name =>
    function.ends_itself ? function.timeout_s * 1000 - 1000 : function.timeout_s * 800
  }

  # A series of metrics of one value: when it is too large, or not there.
  alarms = {
    rest-5xx = {
      description = "The API answers with errors of its own: look at the log of loglineos-api."
      namespace   = "AWS/ApiGateway"
      metric      = "5XXError"
      dimensions  = { ApiName = var.rest_api_name, Stage = var.stage }
      statistic   = "Sum"
      threshold   = 5
    }
    rest-p95 = {
      description = "A request in twenty takes longer than 3 s. Streams are not among these."
      namespace   = local.namespace
      metric      = "RequestDuration"
      dimensions  = { FunctionName = "loglineos-api" }
      percentile  = "p95"
      threshold   = 3000
      minutes     = 15
    }
    boot-errors = {
      description = "Kernels fail: look at the executions with status error, and at the log of the loader."
      namespace   = local.namespace
      metric      = "BootErrors"
      dimensions  = { FunctionName = "loglineos-stage0-loader" }
      statistic   = "Sum"
      threshold   = 5
    }
    sockets-errors = {
      description = "The sockets' integration fails: look at the log of loglineos-timeline."
      namespace   = "AWS/ApiGateway"
      metric      = "IntegrationError"
      dimensions  = { ApiId = var.websocket_api_id, Stage = var.stage }
      statistic   = "Sum"
      threshold   = 5
    }
    database-cpu = {
      description = "The database's processor is busy: Database Insights says with what."
      namespace   = "AWS/RDS"
      metric      = "CPUUtilization"
      dimensions  = { DBInstanceIdentifier = var.database_identifier }
      statistic   = "Average"
      threshold   = 80
      minutes     = 15
    }
    database-storage = {
      description = "A fifth of the first storage is left. It grows by itself up to its maximum: raise that."
      namespace   = "AWS/RDS"
      metric      = "FreeStorageSpace"
      dimensions  = { DBInstanceIdentifier = var.database_identifier }
      statistic   = "Minimum"
      comparison  = "LessThanThreshold"
      threshold   = var.database_storage_gb * 1073741824 / 5
    }
    database-connections = {
      description = "Four of five connections are taken: enable_database_proxy, or a larger class."
      namespace   = "AWS/RDS"
      metric      = "DatabaseConnections"
      dimensions  = { DBInstanceIdentifier = var.database_identifier }
      statistic   = "Maximum"
      threshold   = var.database_connections * 0.8
    }
    backup-failed = {
      description = "A backup failed: AWS Backup says why."
      namespace   = "AWS/Backup"
      metric      = "NumberOfBackupJobsFailed"
      dimensions  = { BackupVaultName = var.backup_vault_name }
      statistic   = "Sum"
      threshold   = 0
      minutes     = 60
    }
    backup-lag = {
      description = "No backup was completed for a day."
      namespace   = "AWS/Backup"
      metric      = "NumberOfBackupJobsCompleted"
      dimensions  = { BackupVaultName = var.backup_vault_name }
      statistic   = "Sum"
      comparison  = "LessThanThreshold"
      threshold   = 1
      minutes     = 1440
      missing     = "breaching"
    }
    queue-age = {
      description = "A request has been due for two minutes: runbook, queue stuck."
      namespace   = local.namespace
      metric      = "QueueOldestAge"
      dimensions  = { Environment = var.environment }
      statistic   = "Maximum"
      threshold   = 120000
      minutes     = 10
    }
    queue-dead = {
      description = "Requests were given up: loglineos requests --status dead."
      namespace   = local.namespace
      metric      = "QueueDepth"
      dimensions  = { Environment = var.environment, State = "dead" }
      statistic   = "Maximum"
      threshold   = 0
    }
    policy-lag = {
      description = "A policy is two minutes behind: runbook, policy stuck."
      namespace   = local.namespace
      metric      = "PolicyLag"
      dimensions  = { Environment = var.environment }
      statistic   = "Maximum"
      threshold   = 120000
      minutes     = 10
    }
    policies-paused = {
      description = "A policy failed and waits before it goes on: look at its policy_error spans."
      namespace   = local.namespace
      metric      = "PoliciesPaused"
      dimensions  = { Environment = var.environment }
      statistic   = "Minimum"
      threshold   = 0
      minutes     = 15
    }
    audit-problems = {
      description = "A row of the ledger does not prove itself: runbook, tampering found."
      namespace   = local.namespace
      metric      = "AuditProblems"
      dimensions  = { Environment = var.environment }
      statistic   = "Maximum"
      threshold   = 0
    }
    audit-heartbeat = {
      description = "The auditor has not ended a run for 15 minutes: nobody looks at the ledger."
      namespace   = local.namespace
      metric      = "AuditRuns"
      dimensions  = { Environment = var.environment }
      statistic   = "Sum"
      comparison  = "LessThanThreshold"
      threshold   = 1
      minutes     = 15
      missing     = "breaching"
    }
    sender-heartbeat = {
      description = "Nobody was asked to send to the sockets for 5 minutes: look at the schedule."
      namespace   = "AWS/Lambda"
      metric      = "Invocations"
      dimensions  = { FunctionName = "loglineos-timeline-sender" }
      statistic   = "Sum"
      comparison  = "LessThanThreshold"
      threshold   = 1
      missing     = "breaching"
    }
  }
}

# ---- who hears of it

resource "aws_sns_topic" "alarms" {
  name              = "${var.name}-alarms"
  kms_master_key_id = var.operations_key_id
}

resource "aws_sns_topic_policy" "alarms" {
  arn    = aws_sns_topic.alarms.arn
  policy = data.aws_iam_policy_document.alarms.json
}

data "aws_caller_identity" "current" {}

data "aws_region" "current" {}

data "aws_iam_policy_document" "alarms" {
  statement {
    actions   = ["sns:Publish"]
    resources = [aws_sns_topic.alarms.arn]

    principals {
      type        = "Service"
      identifiers = ["cloudwatch.amazonaws.com"]
    }

    condition {
      test     = "StringEquals"
      variable = "aws:SourceAccount"
      values   = [data.aws_caller_identity.current.account_id]
    }
  }
}

resource "aws_sns_topic_subscription" "email" {
  for_each = toset(var.alarm_emails)

  topic_arn = aws_sns_topic.alarms.arn
  protocol  = "email"
  endpoint  = each.value
}

# ---- alarms

resource "aws_cloudwatch_metric_alarm" "series" {
  for_each = local.alarms

  alarm_name          = "${var.name}-${each.key}"
  alarm_description   = each.value.description
  namespace           = each.value.namespace
  metric_name         = each.value.metric
  dimensions          = each.value.dimensions
  statistic           = try(each.value.statistic, null)
  extended_statistic  = try(each.value.percentile, null)
  comparison_operator = try(each.value.comparison, "GreaterThanThreshold")
  threshold           = each.value.threshold
  period              = try(each.value.minutes, 5) * 60
  evaluation_periods  = 1
  treat_missing_data  = try(each.value.missing, "notBreaching")
  alarm_actions       = [aws_sns_topic.alarms.arn]
  ok_actions          = [aws_sns_topic.alarms.arn]
}

# A role that works says so three times a minute.
resource "aws_cloudwatch_metric_alarm" "heartbeat" {
  for_each = local.roles

  alarm_name          = "${var.name}-heartbeat-${each.key}"
  alarm_description   = "The role does not work: look at the log of loglineos-${each.key} and at its schedule."
  namespace           = local.namespace
  metric_name         = "TickHeartbeat"
  dimensions          = { Environment = var.environment, Role = each.key }
  statistic           = "Sum"
  comparison_operator = "LessThanThreshold"
  threshold           = 1
  period              = 300
  evaluation_periods  = 1
  treat_missing_data  = "breaching"
  alarm_actions       = [aws_sns_topic.alarms.arn]
  ok_actions          = [aws_sns_topic.alarms.arn]
}

resource "aws_cloudwatch_metric_alarm" "errors" {
  for_each = var.functions

  alarm_name          = "${var.name}-errors-${each.key}"
  alarm_description   = "${each.key} fails: its log says why, by errorType and message."
  namespace           = "AWS/Lambda"
  metric_name         = "Errors"
  dimensions          = { FunctionName = each.key }
  statistic           = "Sum"
  comparison_operator = "GreaterThanThreshold"
  threshold           = 0
  period              = 300
  evaluation_periods  = 1
  treat_missing_data  = "notBreaching"
  alarm_actions       = [aws_sns_topic.alarms.arn]
  ok_actions          = [aws_sns_topic.alarms.arn]
}

resource "aws_cloudwatch_metric_alarm" "throttles" {
  for_each = var.functions

  alarm_name          = "${var.name}-throttles-${each.key}"
  alarm_description   = "${each.key} is not let run: raise the account's concurrency, or its own."
  namespace           = "AWS/Lambda"
  metric_name         = "Throttles"
  dimensions          = { FunctionName = each.key }
  statistic           = "Sum"
  comparison_operator = "GreaterThanThreshold"
  threshold           = 0
  period              = 300
  evaluation_periods  = 1
  treat_missing_data  = "notBreaching"
  alarm_actions       = [aws_sns_topic.alarms.arn]
  ok_actions          = [aws_sns_topic.alarms.arn]
}

resource "aws_cloudwatch_metric_alarm" "duration" {
  for_each = var.functions

  alarm_name          = "${var.name}-duration-${each.key}"
  alarm_description   = "${each.key} is near its timeout of ${each.value.timeout_s} s, or is cut off by it."
  namespace           = "AWS/Lambda"
  metric_name         = "Duration"
  dimensions          = { FunctionName = each.key }
  statistic           = "Maximum"
  comparison_operator = "GreaterThanThreshold"
  threshold           = local.duration_limits_ms[each.key]
  period              = 300
  evaluation_periods  = 1
  treat_missing_data  = "notBreaching"
  alarm_actions       = [aws_sns_topic.alarms.arn]
  ok_actions          = [aws_sns_topic.alarms.arn]
}

resource "aws_cloudwatch_metric_alarm" "dead_letters" {
  for_each = var.dead_letters

  alarm_name          = "${var.name}-dead-letters-${each.key}"
  alarm_description   = "Invocations of ${each.key} failed: the queue has them, the log says why. Empty the queue afterwards."
  namespace           = "AWS/SQS"
  metric_name         = "ApproximateNumberOfMessagesVisible"
  dimensions          = { QueueName = each.value }
  statistic           = "Maximum"
  comparison_operator = "GreaterThanThreshold"
  threshold           = 0
  period              = 300
  evaluation_periods  = 1
  treat_missing_data  = "notBreaching"
  alarm_actions       = [aws_sns_topic.alarms.arn]
  ok_actions          = [aws_sns_topic.alarms.arn]
}

# ---- one dashboard: a row for each question

locals {
  region = data.aws_region.current.region

  questions = [
    {
      question = "Is it up?"
      charts = [
        { title = "Requests", stat = "Sum", metrics = [
          ["AWS/ApiGateway", "Count", "ApiName", var.rest_api_name, "Stage", var.stage],
          ["AWS/ApiGateway", "4XXError", "ApiName", var.rest_api_name, "Stage", var.stage],
          ["AWS/ApiGateway", "5XXError", "ApiName", var.rest_api_name, "Stage", var.stage],
          ["AWS/WAFV2", "BlockedRequests", "WebACL", var.web_acl_name, "Rule", "ALL", "Region", local.region],
        ] },
        { title = "Roles at work", stat = "Sum", metrics = concat(
          [for role in local.roles : [local.namespace, "TickHeartbeat", "Environment", var.environment, "Role", role]],
          [[local.namespace, "AuditRuns", "Environment", var.environment]],
        ) },
        { title = "Functions that failed", stat = "Sum", metrics = [
          for name in keys(var.functions) : ["AWS/Lambda", "Errors", "FunctionName", name]
        ] },
      ]
    },
    {
      question = "Is it slow?"
      charts = [
        { title = "Requests, p95 (ms)", stat = "p95", metrics = [
          [local.namespace, "RequestDuration", "FunctionName", "loglineos-api"],
        ] },
        { title = "Boots and functions, p95 (ms)", stat = "p95", metrics = [
          [local.namespace, "BootDuration", "FunctionName", "loglineos-stage0-loader"],
          [local.namespace, "ExecutionDuration", "Environment", var.environment, "Role", "request-worker"],
        ] },
        { title = "Database", stat = "Average", metrics = [
          ["AWS/RDS", "CPUUtilization", "DBInstanceIdentifier", var.database_identifier],
          ["AWS/RDS", "DatabaseConnections", "DBInstanceIdentifier", var.database_identifier],
        ] },
      ]
    },
    {
      question = "Is the queue growing?"
      charts = [
        { title = "Requests, by state", stat = "Maximum", metrics = [
          for state in ["ready", "delayed", "leased", "dead"] :
          [local.namespace, "QueueDepth", "Environment", var.environment, "State", state]
        ] },
        { title = "Oldest that is due (ms)", stat = "Maximum", metrics = [
          [local.namespace, "QueueOldestAge", "Environment", var.environment],
        ] },
        { title = "Requests closed", stat = "Sum", metrics = [
          for status in ["complete", "error", "dead", "released", "lost"] : [
            local.namespace, "RequestsClosed", "Environment", var.environment, "Role", "request-worker", "Status", status,
          ]
        ] },
      ]
    },
    {
      question = "Is a policy stuck?"
      charts = [
        { title = "Spans not seen yet", stat = "Maximum", metrics = [
          [local.namespace, "PolicyLagSpans", "Environment", var.environment],
        ] },
        { title = "Age of the oldest (ms)", stat = "Maximum", metrics = [
          [local.namespace, "PolicyLag", "Environment", var.environment],
        ] },
        { title = "Paused", stat = "Maximum", metrics = [
          [local.namespace, "PoliciesPaused", "Environment", var.environment],
        ] },
      ]
    },
    {
      question = "Does the ledger verify?"
      charts = [
        { title = "Problems", stat = "Maximum", metrics = [
          [local.namespace, "AuditProblems", "Environment", var.environment],
        ] },
        { title = "Spans verified, and not yet", stat = "Sum", metrics = [
          [local.namespace, "AuditedSpans", "Environment", var.environment],
          [local.namespace, "AuditLagSpans", "Environment", var.environment],
        ] },
        { title = "Backups", stat = "Sum", metrics = [
          ["AWS/Backup", "NumberOfBackupJobsCompleted", "BackupVaultName", var.backup_vault_name],
          ["AWS/Backup", "NumberOfBackupJobsFailed", "BackupVaultName", var.backup_vault_name],
        ] },
      ]
    },
  ]
}

resource "aws_cloudwatch_dashboard" "this" {
  dashboard_name = var.name
  dashboard_body = jsonencode({
    widgets = flatten([
      for row, asked in local.questions : concat(
        [{ type = "text", x = 0, y = row * 7, width = 24, height = 1, properties = { markdown = "## ${asked.question}" } }],
        [
          for column, chart in asked.charts : {
            type   = "metric"
            x      = column * 8
            y      = row * 7 + 1
            width  = 8
            height = 6
            properties = {
              title   = chart.title
              region  = local.region
              view    = "timeSeries"
              stat    = chart.stat
              period  = 60
              metrics = chart.metrics
            }
          }
        ],
      )
    ])
  })
}
