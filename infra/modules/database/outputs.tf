output "identifier" {
  value = aws_db_instance.this.identifier
}

output "arn" {
  value = aws_db_instance.this.arn
}

output "name" {
  value = aws_db_instance.this.db_name
}

output "address" {
  description = "The instance itself: migrations go there."
  value       = aws_db_instance.this.address
}

output "endpoint_for_functions" {
  description = "The proxy, where there is one."
  value       = var.enable_proxy ? aws_db_proxy.this[0].endpoint : aws_db_instance.this.address
}

output "master_user" {
  value = aws_db_instance.this.username
}

output "master_secret_arn" {
  value = aws_db_instance.this.master_user_secret[0].secret_arn
}
