# What is kept outside the ledger: who is connected, which may be lost, and what the auditor saw, which may not.

resource "aws_dynamodb_table" "connections" {
  name         = "${var.name}-connections"
  billing_mode = "PAY_PER_REQUEST"
  hash_key     = "connection_id"

  attribute {
    name = "connection_id"
    type = "S"
  }

  ttl {
    attribute_name = "ends_at"
    enabled        = true
  }

  server_side_encryption {
    enabled = true
  }
}

# The auditor's cursor, and digests of the ledger's segments. Whoever changes the ledger cannot change these: no role has
# the right to delete here, and the table itself is protected in every environment.
resource "aws_dynamodb_table" "audit" {
  name                        = "${var.name}-audit"
  billing_mode                = "PAY_PER_REQUEST"
  hash_key                    = "id"
  deletion_protection_enabled = true

  attribute {
    name = "id"
    type = "S"
  }

  point_in_time_recovery {
    enabled                 = true
    recovery_period_in_days = 35
  }

  server_side_encryption {
    enabled = true
  }

  lifecycle {
    prevent_destroy = true
  }
}
