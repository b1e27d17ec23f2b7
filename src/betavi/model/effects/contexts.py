"""Effects in a context where they were not measured, from similar contexts."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from betavi.diagnostics.effects.baselines import log_profile
from betavi.nn.effects import BASE, DEVIATION

if TYPE_CHECKING:
    from collections.abc import Sequence

    from betavi.module.effect_fit import EffectEstimate

BANDWIDTH = 0.5
"""Bandwidth of the weights of other contexts, in median distances. Chosen among 0.25, 0.5, 0.75 and 1 on
kang_muscat; on the cell lines of mcfaline23 all give the same."""


class Transfer(NamedTuple):
    """Values of the effects of a condition in a context.

    ``row`` are the values, ``(n_effects,)``. ``unmeasured`` are the factors of deviations to add that are
    drawn from their prior.
    """

    row: np.ndarray
    unmeasured: list[float]


def in_context(
    estimate: EffectEstimate, row: np.ndarray, parts: Sequence[int] | np.ndarray, context: int
) -> Transfer:
    """Return the values of the effects of a condition, with deviations of similar contexts.

    If a perturbation was not measured in the context, its deviations in the other contexts are averaged.
    Contexts with a similar profile of control cells have larger weights.
    """
    kinds = estimate.kinds[estimate.kinds != BASE]
    columns = np.flatnonzero(kinds == DEVIATION)
    row = row.copy()
    unmeasured: list[float] = []
    if not len(columns):
        return Transfer(row, unmeasured)
    table = columns.reshape(len(estimate.bases), -1)
    was_measured = estimate.posterior.is_estimated[estimate.n_base :]
    for part in parts:
        others = np.flatnonzero(was_measured[table[:, part]])
        if len(others) and context not in others:
            row[table[others, part]] += row[part] * similarity(estimate, context, others)
            deviations = estimate.posterior.mean[estimate.n_base :][table[others, part]]
            unmeasured.append(float(row[part]) * remaining(estimate, deviations, others))
    return Transfer(row, unmeasured)


def remaining(estimate: EffectEstimate, deviations: np.ndarray, contexts: np.ndarray) -> float:
    """Return the size of a deviation's error if it is predicted from the other contexts.

    It is relative to the deviation itself, and at most 1. ``deviations`` are ``(n_contexts, n_genes)``.
    """
    if len(contexts) < 2:
        return 1.0
    errors = np.empty_like(deviations)
    for place, context in enumerate(contexts):
        others = np.delete(np.arange(len(contexts)), place)
        weights = similarity(estimate, int(context), contexts[others])
        errors[place] = deviations[place] - weights @ deviations[others]
    total = np.square(deviations).sum()
    return float(min(np.sqrt(np.square(errors).sum() / total), 1.0)) if total else 1.0


def similarity(estimate: EffectEstimate, context: int, others: np.ndarray) -> np.ndarray:
    """Return weights of other contexts that sum to 1, ``(n_others,)``."""
    log_rates = estimate.profile + estimate.bases @ estimate.posterior.mean[: estimate.n_base]
    profiles = log_profile(np.exp(log_rates))
    squares = np.square(profiles[others] - profiles[context]).sum(axis=1)
    width = BANDWIDTH**2 * max(np.median(squares), 1e-12)
    weights = np.exp(-(squares - squares.min()) / (2 * width))
    found: np.ndarray = weights / weights.sum()
    return found
