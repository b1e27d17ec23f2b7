"""Priors of latent positions, one file each."""

from __future__ import annotations

from betavi.nn.prior._base import Prior
from betavi.nn.prior.independent import IndependentMixtures
from betavi.nn.prior.mixture import GaussianMixture
from betavi.nn.prior.standard_normal import StandardNormal
from betavi.nn.prior.vamp import VampPrior

PRIORS: dict[str, type[Prior]] = {
    "standard_normal": StandardNormal,
    "vamp": VampPrior,
    "mixture": GaussianMixture,
    "independent": IndependentMixtures,
}
"""Priors by name, ``prior=``."""

__all__ = ["PRIORS", "Prior", "StandardNormal"]
