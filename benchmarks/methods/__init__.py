"""What ECIF is compared with."""
