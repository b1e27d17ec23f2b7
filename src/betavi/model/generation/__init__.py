"""Samples, archetypes, paths and holes."""
