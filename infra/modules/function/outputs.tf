output "name" {
  value = aws_lambda_function.this.function_name
}

output "timeout_s" {
  value = aws_lambda_function.this.timeout
}

output "alias" {
  value = aws_lambda_alias.live.name
}

output "alias_arn" {
  value = aws_lambda_alias.live.arn
}

output "invoke_arn" {
  description = "For API Gateway; of the alias."
  value       = aws_lambda_alias.live.invoke_arn
}

output "dead_letters" {
  description = "Queue of failures, name and ARN; null where somebody waits for the answer."
  value       = one([for queue in aws_sqs_queue.dead_letters : { name = queue.name, arn = queue.arn }])
}
