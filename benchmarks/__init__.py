"""Measurements: every number of the documentation comes from a command in here."""
