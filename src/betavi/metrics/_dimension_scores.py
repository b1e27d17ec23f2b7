"""Scores of pairs of a latent dimension and a label."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import rankdata

from betavi.diagnostics.dimension_relations import equal_bins, membership_information

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True)
class Score:
    """Preparation of a latent space, and the scores of its dimensions for each label.

    ``prepare`` takes the number of bins, and values, ``(n_cells, n_dimensions)``. ``of`` takes the
    prepared values and label numbers, ``(n_cells,)``. It returns shares,
    ``(n_dimensions, n_labels)``.
    """

    prepare: Callable[[int, np.ndarray], np.ndarray]
    of: Callable[[np.ndarray, np.ndarray], np.ndarray]


def _levels_of(n_bins: int, values: np.ndarray) -> np.ndarray:
    """Return the number of each cell's value among the sorted values of its column."""
    del n_bins  # only for informations
    return np.asarray(rankdata(values, method="dense", axis=0)).astype(np.int64) - 1


def _ranks(levels: np.ndarray) -> np.ndarray:
    """Return ranks of cells, ``(n_dimensions, n_cells)``. Ties have their mean rank."""
    n_levels, n_dimensions = levels.max() + 1, levels.shape[1]
    codes = (np.arange(n_dimensions) * n_levels + levels).ravel()
    sizes = np.bincount(codes, minlength=n_dimensions * n_levels).reshape(n_dimensions, n_levels)
    mean_ranks = np.cumsum(sizes, axis=1) - (sizes - 1) / 2
    return np.take_along_axis(mean_ranks, levels.T, axis=1)


def _rank_sums(ranks: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return sums of ranks over the cells of a label, minus the sums expected by chance."""
    centred = ranks - (len(labels) + 1) / 2
    n_labels = labels.max() + 1
    return np.stack([np.bincount(labels, row, n_labels) for row in centred])


def _auc(levels: np.ndarray, labels: np.ndarray) -> np.ndarray:
    sizes = np.bincount(labels)
    return 2 * np.abs(_rank_sums(_ranks(levels), labels)) / (sizes * (len(labels) - sizes))


def _spearman(levels: np.ndarray, labels: np.ndarray) -> np.ndarray:
    ranks = _ranks(levels)
    share = np.bincount(labels) / len(labels)
    spread = ranks.std(axis=1)[:, None] * np.sqrt(share * (1 - share)) * len(labels)
    sums = np.abs(_rank_sums(ranks, labels))
    return np.divide(sums, spread, out=np.zeros_like(sums), where=spread > 0)


SCORES = {
    "information": Score(equal_bins, membership_information),
    "spearman": Score(_levels_of, _spearman),
    "auc": Score(_levels_of, _auc),
}
