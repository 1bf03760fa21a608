# The HTTP API. What it is made of, `npm run gateway` writes from the routes that the program has; here it meets the
# functions behind it.

locals {
  # With the functions filled in: what API Gateway gets.
  body = templatefile("${path.module}/definition.json.tftpl", {
    name           = var.name
    api_uri        = var.api.invoke_arn
    stream_uri     = local.stream_uri
    authorizer_uri = var.authorizer.invoke_arn
  })

  # The same function, asked to answer bit by bit.
  # https://docs.aws.amazon.com/apigateway/latest/developerguide/response-transfer-mode-lambda.html
  stream_uri = replace(
    replace(var.stream.invoke_arn, "2015-03-31", "2021-11-15"),
    "/invocations", "/response-streaming-invocations",
  )

  # As it stands in the file, so that it is known before there is any function.
  paths = jsondecode(file("${path.module}/definition.json.tftpl")).paths

  routes = merge([
    for path, methods in local.paths : {
      for method, operation in methods : "${upper(method)} ${path}" => {
        method = upper(method)
        # A path parameter is any segment.
        path      = replace(path, "/\\{[^}]+\\}/", "*")
        is_stream = operation["x-amazon-apigateway-integration"].uri == "$${stream_uri}"
      } if method != "options"
    }
  ]...)
}

resource "aws_api_gateway_rest_api" "this" {
  name = var.name
  body = local.body

  endpoint_configuration {
    types = ["REGIONAL"]
  }
}

resource "aws_api_gateway_deployment" "this" {
  rest_api_id = aws_api_gateway_rest_api.this.id

  triggers = {
    definition = sha256(local.body)
  }

  lifecycle {
    create_before_destroy = true
  }
}

resource "aws_api_gateway_stage" "this" {
  rest_api_id          = aws_api_gateway_rest_api.this.id
  deployment_id        = aws_api_gateway_deployment.this.id
  stage_name           = var.stage
  xray_tracing_enabled = true

  # The path alone, and no header: a query may hold a ticket.
  access_log_settings {
    destination_arn = aws_cloudwatch_log_group.access.arn
    format = jsonencode({
      request_id  = "$context.requestId"
      time        = "$context.requestTime"
      method      = "$context.httpMethod"
      path        = "$context.path"
      status      = "$context.status"
      bytes       = "$context.responseLength"
      latency_ms  = "$context.responseLatency"
      function_ms = "$context.integration.latency"
      source_ip   = "$context.identity.sourceIp"
      user_agent  = "$context.identity.userAgent"
      principal   = "$context.authorizer.principalId"
      error       = "$context.error.responseType"
      waf         = "$context.wafResponseCode"
      trace       = "$context.xrayTraceId"
    })
  }
}

resource "aws_cloudwatch_log_group" "access" {
  name              = "/loglineos/${var.name}/rest"
  retention_in_days = var.log_retention_days
  kms_key_id        = var.operations_key_arn
}

resource "aws_api_gateway_method_settings" "all" {
  rest_api_id = aws_api_gateway_rest_api.this.id
  stage_name  = aws_api_gateway_stage.this.stage_name
  method_path = "*/*"

  settings {
    throttling_rate_limit  = var.throttling.rate
    throttling_burst_limit = var.throttling.burst
    metrics_enabled        = true
    # Execution logs would hold what the access log leaves out.
    logging_level      = "OFF"
    data_trace_enabled = false
  }
}

# ---- who may invoke what: this stage, this method, this path

resource "aws_lambda_permission" "route" {
  for_each = local.routes

  statement_id  = "${var.name}-${substr(sha256(each.key), 0, 12)}"
  action        = "lambda:InvokeFunction"
  principal     = "apigateway.amazonaws.com"
  function_name = each.value.is_stream ? var.stream.name : var.api.name
  qualifier     = each.value.is_stream ? var.stream.alias : var.api.alias
  source_arn    = "${aws_api_gateway_rest_api.this.execution_arn}/${var.stage}/${each.value.method}${each.value.path}"
}

# A browser's first question, of whatever path: one statement, since a function's policy has 20 KB.
resource "aws_lambda_permission" "preflight" {
  statement_id  = "${var.name}-preflight"
  action        = "lambda:InvokeFunction"
  principal     = "apigateway.amazonaws.com"
  function_name = var.api.name
  qualifier     = var.api.alias
  source_arn    = "${aws_api_gateway_rest_api.this.execution_arn}/${var.stage}/OPTIONS/*"
}

# The authorizers come with the definition, so their ids are not known here.
resource "aws_lambda_permission" "authorizer" {
  statement_id  = "${var.name}-rest"
  action        = "lambda:InvokeFunction"
  principal     = "apigateway.amazonaws.com"
  function_name = var.authorizer.name
  qualifier     = var.authorizer.alias
  source_arn    = "${aws_api_gateway_rest_api.this.execution_arn}/authorizers/*"
}
