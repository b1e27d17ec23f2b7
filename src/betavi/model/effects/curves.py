"""Uncertainty of dose curves in predictions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from betavi.diagnostics.effects.doses import hill
from betavi.nn.effects import BASE, INTERACTION

if TYPE_CHECKING:
    from collections.abc import Sequence

    from betavi.module.effect_fit import EffectEstimate


def curve_factors(
    estimate: EffectEstimate,
    parts: Sequence[int] | np.ndarray,
    doses: Sequence[float] | np.ndarray,
    rng: np.random.Generator,
    n_draws: int,
) -> np.ndarray:
    """Return draws of the effects' values over those of the mean curves, ``(n_draws, n_effects)``.

    ``parts`` are codes of perturbations, and ``doses`` their doses. With another curve, the full effect
    changes so that the effects at the measured doses stay as close as possible.
    """
    curves, n_parts = estimate.curves, len(estimate.design.slope)
    assert curves is not None
    by_part = np.ones((n_draws, n_parts))
    for part, dose in zip(parts, doses, strict=True):
        measured = estimate.doses_of(int(part))
        log_ec50, slope = curves.points(int(part))
        points = rng.choice(len(slope), size=n_draws, p=curves.weights[part].ravel())
        own = estimate.design.log_ec50[part].numpy(), estimate.design.slope[part].numpy()
        drawn = log_ec50[points, None], slope[points, None]
        at_measured = hill(measured[None], *drawn)
        scale = (at_measured @ hill(measured, *own)) / np.square(at_measured).sum(axis=1)
        by_part[:, part] = (
            scale * hill(np.array([dose]), *drawn)[:, 0] / hill(np.array([dose]), *own)
        )
    kinds = estimate.kinds[estimate.kinds != BASE]
    # columns are perturbations, pairs, and perturbations in each context
    singles = np.tile(by_part, int((kinds != INTERACTION).sum()) // n_parts)
    pairs = estimate.design.pairs.numpy()
    of_pairs = by_part[:, pairs[:, 0]] * by_part[:, pairs[:, 1]]
    return np.concatenate([singles[:, :n_parts], of_pairs, singles[:, n_parts:]], axis=1)
