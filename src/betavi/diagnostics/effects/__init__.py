"""Effects of perturbations: estimation with shrinkage, from sums of counts over groups of cells."""

from __future__ import annotations

from betavi.diagnostics.effects.fit import fit_effects
from betavi.diagnostics.effects.groups import GroupSums, inflation, sum_groups
from betavi.diagnostics.effects.posterior import EffectPosterior
from betavi.diagnostics.effects.scale_mixture import ScaleMixture

__all__ = [
    "EffectPosterior", "GroupSums", "ScaleMixture", "fit_effects", "inflation", "sum_groups",
]  # fmt: skip
