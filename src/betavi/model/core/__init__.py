"""Primitives that every ability is built on."""
