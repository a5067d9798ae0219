"""Registries: small ones that serve and fail on command, Debian's, and the cluster's internal one."""
