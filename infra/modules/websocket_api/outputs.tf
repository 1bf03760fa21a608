output "api_id" {
  value = aws_apigatewayv2_api.this.id
}

output "url" {
  description = "wss, with the stage."
  value       = "${aws_apigatewayv2_api.this.api_endpoint}/${var.stage}"
}

# Of the API alone and not of its stage: the sender is told before the stage is there.
output "connections_endpoint" {
  description = "https, with the stage: below it is @connections."
  value       = "${replace(aws_apigatewayv2_api.this.api_endpoint, "wss://", "https://")}/${var.stage}"
}

output "connections_arn" {
  description = "All connections of the stage, but for the method before it."
  value       = "${aws_apigatewayv2_api.this.execution_arn}/${var.stage}"
}
