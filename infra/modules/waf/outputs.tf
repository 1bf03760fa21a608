output "web_acl_name" {
  value = aws_wafv2_web_acl.this.name
}
