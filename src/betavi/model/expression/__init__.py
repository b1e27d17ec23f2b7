"""Normalised expression, differential tests, likelihood scores and translation."""
