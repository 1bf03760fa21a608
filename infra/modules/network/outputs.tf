output "private_subnet_ids" {
  value = aws_subnet.private[*].id
}

output "functions_security_group_id" {
  value = aws_security_group.functions.id
}

output "database_security_group_id" {
  value = aws_security_group.database.id
}
