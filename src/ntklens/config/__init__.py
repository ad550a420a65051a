"""Schemas, checks and identity of configurations."""
