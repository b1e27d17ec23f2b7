"""Labels of cells, and scores of latent dimensions for each label."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from betavi.diagnostics import axis_scores
from betavi.diagnostics.dimension_relations import equal_bins, membership_information

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


class Score(NamedTuple):
    """Score of dimensions for label numbers, ``(n_dimensions, n_labels)``.

    ``of`` takes the bins of cells, or else their positions among the sorted values, and label
    numbers.
    """

    needs_bins: bool
    of: Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True, eq=False)
class Labels:
    """Labels of cells, without cells whose label is missing.

    ``cells`` are the rows to judge, ``truth`` their label numbers, and ``groups`` the groups in
    which the bootstrap resamples.
    """

    cells: np.ndarray
    truth: np.ndarray
    names: pd.Index
    chosen: Score
    n_bins: int

    @classmethod
    def read(cls, labels: Any, chosen: Score, n_bins: int) -> Labels:
        """Return labels after checks."""
        found = _categories(labels)
        cells = np.flatnonzero(found.codes >= 0)
        names = pd.Index(found.categories, name="label")
        return cls(cells, found.codes[cells].astype(np.int64), names, chosen, n_bins)

    @property
    def groups(self) -> np.ndarray:
        """Label numbers: samples have as many cells of each label."""
        return self.truth

    def prepare(self, space: np.ndarray) -> np.ndarray:
        """Return bins or positions among sorted values, ``(n_cells, n_dimensions)``."""
        if self.chosen.needs_bins:
            return equal_bins(self.n_bins, space)
        return np.asarray(rankdata(space, method="dense", axis=0)).astype(np.int64) - 1

    def score(self, prepared: np.ndarray, truth: np.ndarray) -> np.ndarray:
        """Return the score of each dimension for each label, ``(n_dimensions, n_labels)``."""
        return self.chosen.of(prepared, truth)

    def measure(self, draws: Iterable[tuple[np.ndarray, np.ndarray]]) -> list[dict[str, float]]:
        """Return the metrics of each pair of a prepared space and label numbers."""
        return [axis_scores(self.score(*draw)) for draw in draws]


def _categories(labels: Any) -> pd.Categorical:
    """Return the label of each cell, without unused categories. Missing labels remain missing."""
    if np.ndim(labels) != 1:
        raise ValueError(
            f"`labels` must have one axis, not the shape {np.shape(labels)}. Pass one label per "
            "cell, or continuous values as `factors`."
        )
    found = pd.Categorical(labels).remove_unused_categories()
    sizes = found.value_counts().drop(np.nan, errors="ignore")
    if len(sizes) < 2:
        raise ValueError(
            f"`labels` has {len(sizes)} label: {sizes.index.tolist()}. Pass at least two labels, "
            "because each label is compared with the other cells."
        )
    few = sizes.index[sizes < 2]
    if len(few):
        raise ValueError(
            f"{len(few)} of {len(sizes)} labels have one cell, e.g. {few[0]!r}. Merge these labels "
            "with others, or set them to None to drop their cells. Pass continuous values as "
            "`factors`."
        )
    return found


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
    "information": Score(True, membership_information),
    "spearman": Score(False, _spearman),
    "auc": Score(False, _auc),
}
