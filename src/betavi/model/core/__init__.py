"""Primitives that all methods of the models use."""
