"""Plots of results: matplotlib Axes in and out."""

from __future__ import annotations

# not in __all__, where all members are plots
from betavi.pl._style import PALETTE as PALETTE
from betavi.pl.collapse import collapse, collapse_history
from betavi.pl.denoising import before_and_after, denoising
from betavi.pl.dimensions import dimensions
from betavi.pl.dose_curves import dose_curves
from betavi.pl.images import images
from betavi.pl.interactions import interactions
from betavi.pl.map import latent_map
from betavi.pl.mean_curves import mean_curves
from betavi.pl.path import latent_path
from betavi.pl.predicted_change import predicted_change
from betavi.pl.rate_distortion import rate_distortion
from betavi.pl.support import support
from betavi.pl.training_curves import training_curves
from betavi.pl.translation import translation

__all__ = [
    "before_and_after", "collapse", "collapse_history", "denoising", "dimensions", "dose_curves",
    "images", "interactions",
    "latent_map", "latent_path", "mean_curves", "predicted_change", "rate_distortion", "support",
    "training_curves", "translation",
]  # fmt: skip
