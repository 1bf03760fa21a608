output "state_bucket" {
  description = "For backend.hcl of the environment."
  value       = aws_s3_bucket.this["state"].bucket
}

output "artifact_bucket" {
  description = "For npm run deploy -- --bucket."
  value       = aws_s3_bucket.this["artifacts"].bucket
}

output "root_secret_arn" {
  value = aws_secretsmanager_secret.keys["root"].arn
}

output "runtime_secret_arn" {
  value = aws_secretsmanager_secret.keys["runtime"].arn
}

output "override_secret_arn" {
  value = aws_secretsmanager_secret.keys["override"].arn
}
