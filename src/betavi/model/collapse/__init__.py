"""Diagnosis and repair of posterior collapse, rate-distortion curves, choice of β."""
