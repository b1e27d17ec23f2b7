"""Metrics of a latent space with a null model of permutations and bootstrap intervals."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from betavi.metrics._factors import Factors
    from betavi.metrics._labels import Labels

LEVEL, NULL_QUANTILE = 0.9, 0.95


def judge(
    space: np.ndarray, target: Labels | Factors, n_permutations: int, n_bootstrap: int, seed: int
) -> tuple[pd.DataFrame, np.ndarray]:
    """Return the metrics of a latent space with intervals and null, and the scores."""
    rng = np.random.default_rng(seed)
    prepared, truth = target.prepare(space[target.cells]), target.truth
    value = pd.Series(target.measure([(prepared, truth)])[0])
    null = target.measure((prepared, rng.permutation(truth)) for _ in range(n_permutations))
    samples = (_resampled(target.groups, rng) for _ in range(n_bootstrap))
    draws = target.measure((prepared[rows], truth[rows]) for rows in samples)
    table = _summary(value, _table(null, value.index), _table(draws, value.index))
    return table, target.score(prepared, truth)


def _table(draws: list[dict[str, float]], metrics: pd.Index) -> pd.DataFrame:
    """Return one row per draw. A metric that was left out in a draw is missing there."""
    return pd.DataFrame(draws, columns=metrics, dtype=float)


def _summary(value: pd.Series, null: pd.DataFrame, draws: pd.DataFrame) -> pd.DataFrame:
    # bootstrap samples repeat cells, which increases informations
    centred = draws - draws.mean() + value
    return pd.DataFrame({
        "value": value,
        "lower": centred.quantile((1 - LEVEL) / 2).clip(0, 1),
        "upper": centred.quantile((1 + LEVEL) / 2).clip(0, 1),
        "null_mean": null.mean(),
        "null_upper": null.quantile(NULL_QUANTILE),
    })  # fmt: skip


def _resampled(groups: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return for each cell the position of a random cell of the same group."""
    order = np.argsort(groups, kind="stable")
    sizes = np.bincount(groups)
    starts = np.cumsum(sizes) - sizes
    places = (rng.random(len(groups)) * sizes[groups]).astype(np.int64)
    return np.asarray(order[starts[groups] + places])
