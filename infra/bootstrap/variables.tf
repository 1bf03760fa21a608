variable "environment" {
  description = "dev or prod."
  type        = string
}

variable "region" {
  description = "Where the environment is to be."
  type        = string
}

variable "second_region" {
  description = "Where its copies are to be."
  type        = string
}
