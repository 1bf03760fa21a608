output "region" {
  value = module.loglineos.region
}

output "artifact_bucket" {
  value = var.artifact_bucket
}

output "function_names" {
  description = "ARN of the alias `live`, by the function's name."
  value       = module.loglineos.function_names
}

output "rest_url" {
  value = module.loglineos.rest_url
}

output "websocket_url" {
  value = module.loglineos.websocket_url
}

output "root_secret_arn" {
  value = module.loglineos.root_secret_arn
}

output "runtime_secret_arn" {
  value = module.loglineos.runtime_secret_arn
}

output "login_secret_arns" {
  value = module.loglineos.login_secret_arns
}

output "provider_secret_arn" {
  value = module.loglineos.provider_secret_arn
}

output "audit_table" {
  value = module.loglineos.audit_table
}

output "database_identifier" {
  value = module.loglineos.database_identifier
}

output "dashboard" {
  value = module.loglineos.dashboard
}
