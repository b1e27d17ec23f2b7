"""Denoised counts, molecular cross-validation, false signals."""
