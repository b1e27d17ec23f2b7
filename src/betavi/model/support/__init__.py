"""Outlier scores with calibrated p-values."""
