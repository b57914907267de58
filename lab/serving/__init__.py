"""Measurements of the service under load."""
