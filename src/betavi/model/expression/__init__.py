"""Normalised expression, differential tests, likelihood scores, translation."""
