# The sockets. API Gateway keeps them; `loglineos-timeline` notes what clients say, `loglineos-timeline-sender` sends.

resource "aws_apigatewayv2_api" "this" {
  name                       = "${var.name}-sockets"
  protocol_type              = "WEBSOCKET"
  route_selection_expression = "$request.body.action"
}

resource "aws_apigatewayv2_authorizer" "this" {
  api_id          = aws_apigatewayv2_api.this.id
  name            = "caller"
  authorizer_type = "REQUEST"
  authorizer_uri  = var.authorizer.invoke_arn
  # No identity source: all that are named must be there, and a browser has a ticket in the query, a program a token in
  # the header. The authorizer refuses who has neither.
}

resource "aws_apigatewayv2_integration" "timeline" {
  api_id           = aws_apigatewayv2_api.this.id
  integration_type = "AWS_PROXY"
  integration_uri  = var.timeline.invoke_arn
}

# The one route that an authorizer can stand before; what comes later has passed it.
resource "aws_apigatewayv2_route" "connect" {
  api_id             = aws_apigatewayv2_api.this.id
  route_key          = "$connect"
  authorization_type = "CUSTOM"
  authorizer_id      = aws_apigatewayv2_authorizer.this.id
  target             = "integrations/${aws_apigatewayv2_integration.timeline.id}"
}

resource "aws_apigatewayv2_route" "disconnect" {
  api_id    = aws_apigatewayv2_api.this.id
  route_key = "$disconnect"
  target    = "integrations/${aws_apigatewayv2_integration.timeline.id}"
}

# Whatever a client says; the function answers on the same socket.
resource "aws_apigatewayv2_route" "default" {
  api_id                              = aws_apigatewayv2_api.this.id
  route_key                           = "$default"
  route_response_selection_expression = "$default"
  target                              = "integrations/${aws_apigatewayv2_integration.timeline.id}"
}

resource "aws_apigatewayv2_route_response" "default" {
  api_id             = aws_apigatewayv2_api.this.id
  route_id           = aws_apigatewayv2_route.default.id
  route_response_key = "$default"
}

resource "aws_apigatewayv2_deployment" "this" {
  api_id = aws_apigatewayv2_api.this.id

  triggers = {
    definition = sha256(jsonencode([
      aws_apigatewayv2_authorizer.this,
      aws_apigatewayv2_integration.timeline,
      aws_apigatewayv2_route.connect,
      aws_apigatewayv2_route.disconnect,
      aws_apigatewayv2_route.default,
      aws_apigatewayv2_route_response.default,
    ]))
  }

  lifecycle {
    create_before_destroy = true
  }
}

resource "aws_apigatewayv2_stage" "this" {
  api_id        = aws_apigatewayv2_api.this.id
  name          = var.stage
  deployment_id = aws_apigatewayv2_deployment.this.id

  default_route_settings {
    throttling_rate_limit    = var.throttling.rate
    throttling_burst_limit   = var.throttling.burst
    detailed_metrics_enabled = true
    data_trace_enabled       = false
    logging_level            = "OFF"
  }

  # No query string: it has tickets.
  access_log_settings {
    destination_arn = aws_cloudwatch_log_group.access.arn
    format = jsonencode({
      request_id    = "$context.requestId"
      time          = "$context.requestTime"
      event_type    = "$context.eventType"
      route         = "$context.routeKey"
      connection_id = "$context.connectionId"
      status        = "$context.status"
      source_ip     = "$context.identity.sourceIp"
      principal     = "$context.authorizer.principalId"
      error         = "$context.error.message"
      integration   = "$context.integrationErrorMessage"
    })
  }
}

resource "aws_cloudwatch_log_group" "access" {
  name              = "/loglineos/${var.name}/sockets"
  retention_in_days = var.log_retention_days
  kms_key_id        = var.operations_key_arn
}

resource "aws_lambda_permission" "authorizer" {
  statement_id  = "${var.name}-sockets"
  action        = "lambda:InvokeFunction"
  principal     = "apigateway.amazonaws.com"
  function_name = var.authorizer.name
  qualifier     = var.authorizer.alias
  source_arn    = "${aws_apigatewayv2_api.this.execution_arn}/authorizers/${aws_apigatewayv2_authorizer.this.id}"
}

resource "aws_lambda_permission" "timeline" {
  for_each = { connect = "$connect", disconnect = "$disconnect", default = "$default" }

  statement_id  = "${var.name}-sockets-${each.key}"
  action        = "lambda:InvokeFunction"
  principal     = "apigateway.amazonaws.com"
  function_name = var.timeline.name
  qualifier     = var.timeline.alias
  source_arn    = "${aws_apigatewayv2_api.this.execution_arn}/${aws_apigatewayv2_stage.this.name}/${each.value}"
}
