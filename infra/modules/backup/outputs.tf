output "vault_name" {
  value = aws_backup_vault.this.name
}
