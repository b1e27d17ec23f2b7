"""Explanations of latent dimensions in genes, nats, labels and covariates."""
