variable "name" {
  description = "Beginning of every name."
  type        = string
}

variable "cidr_block" {
  description = "Addresses of the VPC, a /16 to /20."
  type        = string
}

variable "enable_nat" {
  description = "A way to the internet for the functions beside the database: model providers and OIDC issuers need it."
  type        = bool
}

variable "endpoint_zones" {
  description = "In how many of the two zones the interface endpoints stand, each of which is paid for by the hour."
  type        = number

  validation {
    condition     = contains([1, 2], var.endpoint_zones)
    error_message = "1 or 2."
  }
}

variable "enable_lambda_endpoint" {
  description = "Functions beside the database invoke another one: the sandbox."
  type        = bool
}

variable "artifact_bucket" {
  description = "The only bucket that the S3 endpoint leads to."
  type        = string
}
