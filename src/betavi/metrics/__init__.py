"""Metrics of latent spaces, likelihoods, generated cells and images."""

from __future__ import annotations

from betavi.diagnostics.effects.scores import perturbation_scores
from betavi.metrics.alignment import foscttm
from betavi.metrics.bits import bits_per_pixel
from betavi.metrics.changes import measured_changes
from betavi.metrics.curves import mean_curves
from betavi.metrics.disentanglement import Disentanglement, disentanglement
from betavi.metrics.image_power import power_ratio
from betavi.metrics.likelihoods import compare_likelihoods
from betavi.metrics.pca import LinearModel, pca_rate_distortion
from betavi.metrics.realism import log_fold_changes, realism, two_sample_auc
from betavi.metrics.ridges import RidgeAgreement, ridges
from betavi.metrics.samples import energy_distance, maximum_mean_discrepancy
from betavi.metrics.synergy import synergy

__all__ = [
    "Disentanglement", "LinearModel", "RidgeAgreement", "bits_per_pixel", "compare_likelihoods",
    "disentanglement", "energy_distance", "foscttm", "log_fold_changes", "maximum_mean_discrepancy",
    "mean_curves", "measured_changes", "pca_rate_distortion", "perturbation_scores", "power_ratio",
    "realism", "ridges", "synergy", "two_sample_auc",
]  # fmt: skip
