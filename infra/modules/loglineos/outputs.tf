output "region" {
  value = data.aws_region.current.region
}

output "function_names" {
  description = "ARN of the alias `live`, by the function's name."
  value       = { for name, function in module.function : name => function.alias_arn }
}

output "rest_url" {
  value = module.rest_api.url
}

output "websocket_url" {
  value = module.websocket_api.url
}

output "root_secret_arn" {
  value = local.secret_arns.root
}

output "runtime_secret_arn" {
  value = local.secret_arns.runtime
}

output "login_secret_arns" {
  value = module.secrets.login_secret_arns
}

output "provider_secret_arn" {
  value = module.secrets.provider_secret_arn
}

output "audit_table" {
  value = module.tables.audit_table
}

output "database_identifier" {
  value = module.database.identifier
}

output "dashboard" {
  value = module.observability.dashboard_name
}
