"""Processes that carry out a plan."""
