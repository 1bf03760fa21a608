output "login_secret_arns" {
  description = "By login: app, seeder, auditor."
  value       = { for login, secret in aws_secretsmanager_secret.login : login => secret.arn }
}

output "provider_secret_arn" {
  description = "null where there is none."
  value       = one(aws_secretsmanager_secret.providers[*].arn)
}
