output "api_name" {
  value = aws_api_gateway_rest_api.this.name
}

output "stage_arn" {
  value = aws_api_gateway_stage.this.arn
}

output "url" {
  description = "https, with the stage."
  value       = aws_api_gateway_stage.this.invoke_url
}
