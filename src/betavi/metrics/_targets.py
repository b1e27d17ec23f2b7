"""Labels or factors that latent spaces are judged by, with permutations and bootstrap samples."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from betavi.diagnostics import axis_scores
from betavi.metrics import _factors
from betavi.metrics._spaces import read_factors, read_labels

if TYPE_CHECKING:
    from collections.abc import Callable

    from betavi.metrics._dimension_scores import Score

LEVEL, NULL_QUANTILE = 0.9, 0.95
MOST_REFITS = 20  # permutations and bootstrap samples in which the trees of DCI are fitted


@dataclass(frozen=True, eq=False)
class Target:
    """Labels or factors of cells, and their metrics.

    ``cells`` are the rows to judge, ``truth`` their labels or factors, and ``groups`` the groups
    in which the bootstrap resamples. ``prepare`` takes a latent space. ``score`` and ``measure``
    take the prepared space and the truth; ``measure`` also takes the scores.
    """

    cells: np.ndarray
    truth: np.ndarray
    groups: np.ndarray
    names: pd.Index
    prepare: Callable[[np.ndarray], np.ndarray]
    score: Callable[[np.ndarray, np.ndarray], np.ndarray]
    measure: Callable[..., dict[str, float]]

    def metrics(self, space: np.ndarray, truth: np.ndarray, with_trees: bool) -> dict[str, float]:
        """Return the metrics of a prepared space."""
        return self.measure(space, truth, self.score(space, truth), with_trees)


def label_target(labels: Any, n_cells: int, score: Score, n_bins: int) -> Target:
    """Return the labels of cells, without cells whose label is missing."""
    found = read_labels(labels, n_cells)
    cells = np.flatnonzero(found.codes >= 0)
    codes = found.codes[cells].astype(np.int64)
    names = pd.Index(found.categories, name="label")
    prepare = partial(score.prepare, n_bins)
    return Target(cells, codes, codes, names, prepare, score.of, _label_metrics)


def _label_metrics(
    _: np.ndarray, __: np.ndarray, scores: np.ndarray, with_trees: bool
) -> dict[str, float]:
    del with_trees  # only for factors
    return axis_scores(scores)


def factor_target(factors: Any, n_cells: int, n_bins: int, seed: int) -> Target:
    """Return the factors of cells in random order. Bootstrap samples do not mix both halves."""
    found = read_factors(factors, n_cells)
    cells = np.random.default_rng(seed).permutation(n_cells)
    values = _factors.unit_range(found.to_numpy()[cells])
    halves = (np.arange(n_cells) >= n_cells // 2).astype(np.int64)
    names = found.columns.rename("factor")
    score = partial(_factors.factor_information, n_bins=n_bins)
    return Target(cells, values, halves, names, _factors.unit_range, score, _factors.measures)


def judge(
    space: np.ndarray, target: Target, n_permutations: int, n_bootstrap: int, seed: int
) -> tuple[pd.DataFrame, np.ndarray]:
    """Return the metrics of a latent space with intervals and null, and the scores."""
    rng = np.random.default_rng(seed)
    prepared, truth = target.prepare(space[target.cells]), target.truth
    scores = target.score(prepared, truth)
    value = pd.Series(target.measure(prepared, truth, scores, True))
    shuffled = (rng.permutation(truth) for _ in range(n_permutations))
    null = [target.metrics(prepared, other, i < MOST_REFITS) for i, other in enumerate(shuffled)]
    samples = (_resampled(target.groups, rng) for _ in range(n_bootstrap))
    draws = [
        target.metrics(prepared[rows], truth[rows], i < MOST_REFITS)
        for i, rows in enumerate(samples)
    ]
    return _summary(value, _table(null, value.index), _table(draws, value.index)), scores


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
