"""Diagnosis and repair of posterior collapse, rate-distortion curves, and choice of β."""
