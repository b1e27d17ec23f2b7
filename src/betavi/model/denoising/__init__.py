"""Denoising, molecular cross-validation, and false signals of denoising."""
