"""What judges a result."""

from __future__ import annotations

from betavi.metrics.likelihoods import compare_likelihoods
from betavi.metrics.pca import LinearModel, pca_rate_distortion

__all__ = ["LinearModel", "compare_likelihoods", "pca_rate_distortion"]
