"""What judges a result."""

from __future__ import annotations

from betavi.metrics.alignment import foscttm
from betavi.metrics.likelihoods import compare_likelihoods
from betavi.metrics.pca import LinearModel, pca_rate_distortion

__all__ = [
    "LinearModel",
    "compare_likelihoods",
    "foscttm",
    "pca_rate_distortion",
]
