# Each function, and what it needs: nothing else is set, and nothing else is granted. A test compares this table with
# what the bundles read and send.
#
#   database      the login that it has: app, seeder, auditor or master. It stands in the VPC, gets the DATABASE_… and may
#                 read that login's secret
#   secrets       which other secrets it may read
#   permissions   what else it may do, by the names below
#   environment   what it is told beside the database; null is not set
#   rate          how often a schedule starts it
#   ends_itself   it works until shortly before its time is up, so only a run to the very end is one that went wrong
#
# Time: the roles work until their time is up. Of observer and policy agent one at a time works, and another that comes
# meanwhile ends at once: so they have a minute, and what starts at the next finds the place free. Request workers work
# side by side and take work only while 68 s are left (a function's 60, and what is kept back): with 150 s the first 82
# overlap the next one's, and there is always one that takes work. The sender of the next minute waits for the one before,
# so with 90 s there is no gap.

locals {
  functions = {
    loglineos-db-migration = {
      description = "Brings the schema up to date and gives the logins their passwords"
      memory_mb   = 512
      timeout_s   = 900
      database    = "master"
      secrets     = ["app", "seeder", "auditor"]
      environment = {
        APP_LOGIN_SECRET_ARN     = local.secret_arns.app
        SEEDER_LOGIN_SECRET_ARN  = local.secret_arns.seeder
        AUDITOR_LOGIN_SECRET_ARN = local.secret_arns.auditor
      }
    }

    loglineos-seed = {
      description = "Appends the rows of the system, signed with the root key"
      memory_mb   = 512
      timeout_s   = 300
      database    = "seeder"
      secrets     = ["root"]
      environment = {
        ROOT_SECRET_ARN     = local.secret_arns.root
        TRUSTED_ROOT_KEYS   = local.trusted_root_keys
        OVERRIDE_PUBLIC_KEY = var.override_public_key
      }
    }

    loglineos-authorizer = {
      description = "Says who calls the REST API or connects a socket"
      memory_mb   = 512
      timeout_s   = 10
      database    = "app"
      secrets     = ["runtime"]
      environment = {
        RUNTIME_SECRET_ARN         = local.secret_arns.runtime
        TRUSTED_ROOT_KEYS          = local.trusted_root_keys
        TRUSTED_RUNTIME_KEYS       = local.trusted_runtime_keys
        LOGLINEOS_JWT_ISSUER       = local.jwt.issuer
        LOGLINEOS_JWT_AUDIENCE     = local.jwt.audience
        LOGLINEOS_JWT_JWKS_URI     = local.jwt.jwks_uri
        LOGLINEOS_JWT_JWKS         = local.jwt.jwks
        LOGLINEOS_JWT_USER_CLAIM   = local.jwt.user_claim
        LOGLINEOS_JWT_TENANT_CLAIM = local.jwt.tenant_claim
        LOGLINEOS_JWT_SCOPES_CLAIM = local.jwt.scopes_claim
      }
    }

    loglineos-stage0-loader = {
      description = "Boots a kernel"
      memory_mb   = 1024
      timeout_s   = 90
      database    = "app"
      secrets     = ["runtime", "providers"]
      permissions = ["invoke_sandbox"]
      environment = {
        RUNTIME_SECRET_ARN   = local.secret_arns.runtime
        PROVIDER_SECRET_ARN  = local.secret_arns.providers
        TRUSTED_ROOT_KEYS    = local.trusted_root_keys
        TRUSTED_RUNTIME_KEYS = local.trusted_runtime_keys
        SANDBOX_FUNCTION     = local.sandbox_function
        # By which the deploy script sees that it is where it should be.
        ENVIRONMENT = var.environment
      }
    }

    loglineos-observer = {
      description = "Asks for runs that are due"
      memory_mb   = 512
      timeout_s   = 60
      ends_itself = true
      rate        = "rate(1 minute)"
      database    = "app"
      secrets     = ["runtime"]
      permissions = ["put_metrics", "invoke_sandbox"]
      environment = {
        RUNTIME_SECRET_ARN   = local.secret_arns.runtime
        TRUSTED_ROOT_KEYS    = local.trusted_root_keys
        TRUSTED_RUNTIME_KEYS = local.trusted_runtime_keys
        SANDBOX_FUNCTION     = local.sandbox_function
        ENVIRONMENT          = var.environment
      }
    }

    loglineos-request-worker = {
      description = "Runs what was asked for"
      memory_mb   = 1769
      timeout_s   = 150
      ends_itself = true
      rate        = "rate(1 minute)"
      database    = "app"
      secrets     = ["runtime"]
      permissions = ["put_metrics", "invoke_sandbox"]
      environment = {
        RUNTIME_SECRET_ARN   = local.secret_arns.runtime
        TRUSTED_ROOT_KEYS    = local.trusted_root_keys
        TRUSTED_RUNTIME_KEYS = local.trusted_runtime_keys
        SANDBOX_FUNCTION     = local.sandbox_function
        ENVIRONMENT          = var.environment
      }
    }

    loglineos-policy-agent = {
      description = "Asks policies about new spans"
      memory_mb   = 1024
      timeout_s   = 60
      ends_itself = true
      rate        = "rate(1 minute)"
      database    = "app"
      secrets     = ["runtime"]
      permissions = ["put_metrics", "invoke_sandbox"]
      environment = {
        RUNTIME_SECRET_ARN   = local.secret_arns.runtime
        TRUSTED_ROOT_KEYS    = local.trusted_root_keys
        TRUSTED_RUNTIME_KEYS = local.trusted_runtime_keys
        SANDBOX_FUNCTION     = local.sandbox_function
        ENVIRONMENT          = var.environment
      }
    }

    # API Gateway waits for 29 s; what takes longer still ends here, and is in the ledger.
    loglineos-api = {
      description = "The HTTP routes"
      memory_mb   = 1024
      timeout_s   = 90
      database    = "app"
      secrets     = ["runtime", "providers"]
      permissions = ["invoke_sandbox"]
      environment = {
        RUNTIME_SECRET_ARN         = local.secret_arns.runtime
        PROVIDER_SECRET_ARN        = local.secret_arns.providers
        TRUSTED_ROOT_KEYS          = local.trusted_root_keys
        TRUSTED_RUNTIME_KEYS       = local.trusted_runtime_keys
        SANDBOX_FUNCTION           = local.sandbox_function
        CORS_ORIGINS               = local.cors_origins
        LOGLINEOS_JWT_ISSUER       = local.jwt.issuer
        LOGLINEOS_JWT_AUDIENCE     = local.jwt.audience
        LOGLINEOS_JWT_JWKS_URI     = local.jwt.jwks_uri
        LOGLINEOS_JWT_JWKS         = local.jwt.jwks
        LOGLINEOS_JWT_USER_CLAIM   = local.jwt.user_claim
        LOGLINEOS_JWT_TENANT_CLAIM = local.jwt.tenant_claim
        LOGLINEOS_JWT_SCOPES_CLAIM = local.jwt.scopes_claim
      }
    }

    loglineos-api-stream = {
      description = "The timeline as server-sent events"
      memory_mb   = 512
      timeout_s   = 900
      ends_itself = true
      database    = "app"
      secrets     = ["runtime"]
      permissions = ["invoke_sandbox"]
      environment = {
        RUNTIME_SECRET_ARN         = local.secret_arns.runtime
        TRUSTED_ROOT_KEYS          = local.trusted_root_keys
        TRUSTED_RUNTIME_KEYS       = local.trusted_runtime_keys
        SANDBOX_FUNCTION           = local.sandbox_function
        CORS_ORIGINS               = local.cors_origins
        LOGLINEOS_JWT_ISSUER       = local.jwt.issuer
        LOGLINEOS_JWT_AUDIENCE     = local.jwt.audience
        LOGLINEOS_JWT_JWKS_URI     = local.jwt.jwks_uri
        LOGLINEOS_JWT_JWKS         = local.jwt.jwks
        LOGLINEOS_JWT_USER_CLAIM   = local.jwt.user_claim
        LOGLINEOS_JWT_TENANT_CLAIM = local.jwt.tenant_claim
        LOGLINEOS_JWT_SCOPES_CLAIM = local.jwt.scopes_claim
      }
    }

    loglineos-timeline = {
      description = "Notes what clients of the sockets say"
      memory_mb   = 256
      timeout_s   = 10
      permissions = ["keep_connections"]
      environment = {
        CONNECTIONS_TABLE = module.tables.connections_table
      }
    }

    loglineos-timeline-reader = {
      description = "Tells the sender what is new in the ledger"
      memory_mb   = 512
      timeout_s   = 15
      database    = "app"
      environment = {
        TRUSTED_ROOT_KEYS    = local.trusted_root_keys
        TRUSTED_RUNTIME_KEYS = local.trusted_runtime_keys
      }
    }

    loglineos-timeline-sender = {
      description = "Sends what is new to the sockets"
      memory_mb   = 512
      timeout_s   = 90
      ends_itself = true
      rate        = "rate(1 minute)"
      permissions = ["serve_connections", "invoke_reader", "post_to_connections"]
      environment = {
        CONNECTIONS_TABLE = module.tables.connections_table
        READER_FUNCTION   = local.reader_arn
        SOCKETS_ENDPOINT  = module.websocket_api.connections_endpoint
      }
    }

    loglineos-auditor = {
      description = "Verifies what is new in the ledger, and a part of what is old"
      memory_mb   = 1024
      timeout_s   = 240
      ends_itself = true
      rate        = "rate(5 minutes)"
      database    = "auditor"
      permissions = ["put_metrics", "keep_anchors"]
      environment = {
        TRUSTED_ROOT_KEYS    = local.trusted_root_keys
        TRUSTED_RUNTIME_KEYS = local.trusted_runtime_keys
        AUDIT_TABLE          = module.tables.audit_table
        ENVIRONMENT          = var.environment
      }
    }

    # It runs what nobody has reviewed: no network of ours, no variable, and a role that may do nothing, not even log. What
    # went wrong, its callers say. A function's 60 s, and what a child needs to start.
    loglineos-sandbox = {
      description = "Runs one piece of untrusted code"
      memory_mb   = 1769
      timeout_s   = 90
      is_bare     = true
    }
  }

  # What a role may do, and on what.
  permissions = {
    # PutMetricData knows no resources; the namespace is what can be said.
    put_metrics = {
      sid       = "PutMetrics"
      actions   = ["cloudwatch:PutMetricData"]
      resources = ["*"]
      condition = { test = "StringEquals", variable = "cloudwatch:namespace", values = ["LogLineOS"] }
    }

    invoke_sandbox = {
      sid       = "InvokeSandbox"
      actions   = ["lambda:InvokeFunction"]
      resources = [local.sandbox_arn]
    }

    invoke_reader = {
      sid       = "InvokeReader"
      actions   = ["lambda:InvokeFunction"]
      resources = [local.reader_arn]
    }

    keep_connections = {
      sid       = "KeepConnections"
      actions   = ["dynamodb:DeleteItem", "dynamodb:GetItem", "dynamodb:PutItem", "dynamodb:UpdateItem"]
      resources = [module.tables.connections_table_arn]
    }

    serve_connections = {
      sid       = "ServeConnections"
      actions   = ["dynamodb:DeleteItem", "dynamodb:Scan", "dynamodb:UpdateItem"]
      resources = [module.tables.connections_table_arn]
    }

    post_to_connections = {
      sid     = "PostToConnections"
      actions = ["execute-api:ManageConnections"]
      resources = [
        "${module.websocket_api.connections_arn}/POST/@connections/*",
        "${module.websocket_api.connections_arn}/DELETE/@connections/*",
      ]
    }

    # Never to delete: what the auditor saw stays.
    keep_anchors = {
      sid       = "KeepAnchors"
      actions   = ["dynamodb:GetItem", "dynamodb:UpdateItem"]
      resources = [module.tables.audit_table_arn]
    }
  }
}
