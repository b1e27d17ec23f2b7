"""Registration and input checks, names to positions, messages."""
