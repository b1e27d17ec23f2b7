"""Continuous factors of cells, and metrics of latent spaces: LMS, MSAS, MIG, SAP and DCI."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import entr
from sklearn.ensemble import ExtraTreesRegressor

from betavi.diagnostics import axis_scores
from betavi.diagnostics.dimension_relations import contingency
from betavi.metrics._spaces import read_numbers

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pandas as pd

FEWEST_CELLS = 20  # because trees are fitted to a half of the cells
MOST_CELLS = 1000  # in the half that trees are fitted to, and in the half that they predict
N_TREES, LEAF_CELLS = 10, 5
MOST_REFITS = 20  # permutations and bootstrap samples in which trees are fitted


@dataclass(frozen=True, eq=False)
class Factors:
    """Factors of cells in random order, scaled to the range from 0 to 1.

    ``cells`` are the rows to judge, ``truth`` their factors, and ``groups`` the groups in which
    the bootstrap resamples.
    """

    cells: np.ndarray
    truth: np.ndarray
    names: pd.Index
    n_bins: int

    @classmethod
    def read(cls, factors: Any, n_bins: int, seed: int) -> Factors:
        """Return factors after checks."""
        found = read_numbers("factors", factors, "factor")
        for name, values in found.items():
            if values.min() == values.max():
                raise ValueError(
                    f"The factor {name!r} is {values.iloc[0]:g} in all cells. Drop it."
                )
        if len(found) < FEWEST_CELLS:
            raise ValueError(
                f"Only {len(found)} cells were passed. With `factors`, pass at least {FEWEST_CELLS}."
            )
        cells = np.random.default_rng(seed).permutation(len(found))
        truth = unit_range(found.to_numpy()[cells])
        return cls(cells, truth, found.columns.rename("factor"), n_bins)

    @property
    def groups(self) -> np.ndarray:
        """Halves of the cells. Samples do not mix fitted and held-out cells of the trees."""
        n_cells = len(self.cells)
        return (np.arange(n_cells) >= n_cells // 2).astype(np.int64)

    def prepare(self, space: np.ndarray) -> np.ndarray:
        """Return dimensions in the range from 0 to 1, ``(n_cells, n_dimensions)``."""
        return unit_range(space)

    def score(self, prepared: np.ndarray, truth: np.ndarray) -> np.ndarray:
        """Return the score of each dimension for each factor, ``(n_dimensions, n_factors)``."""
        return factor_information(prepared, truth, self.n_bins)

    def measure(self, draws: Iterable[tuple[np.ndarray, np.ndarray]]) -> list[dict[str, float]]:
        """Return the metrics of each pair of a prepared space and factors.

        Only the first ``MOST_REFITS`` have DCI.
        """
        found = []
        for number, (prepared, truth) in enumerate(draws):
            found.append(dimension_metrics(self.score(prepared, truth), prepared, truth))
            if number < MOST_REFITS:
                found[-1] |= dci(prepared, truth)
        return found


def unit_range(values: np.ndarray) -> np.ndarray:
    """Return columns scaled to the range from 0 to 1. Constant columns are 0."""
    low, width = values.min(axis=0), np.ptp(values, axis=0)
    return np.divide(values - low, width, out=np.zeros_like(values), where=width > 0)


def factor_information(values: np.ndarray, factors: np.ndarray, n_bins: int) -> np.ndarray:
    """Return mutual informations as shares of the factors' entropies, ``(n_dimensions, n_factors)``.

    ``values`` and ``factors`` are in the range from 0 to 1.
    """
    bins, of_factors = (
        np.minimum(part * n_bins, n_bins - 1).astype(np.int64) for part in (values, factors)
    )
    columns = [_information_on(bins, column) for column in of_factors.T]
    return np.column_stack(columns)


def _information_on(bins: np.ndarray, factor: np.ndarray) -> np.ndarray:
    joint = contingency(bins, factor) / len(factor)
    of_bins, of_factor = entr(joint.sum(axis=2)).sum(axis=1), entr(joint[0].sum(axis=0)).sum()
    shared = of_bins + of_factor - entr(joint).sum(axis=(1, 2))
    return np.asarray(np.clip(shared / max(of_factor, 1e-12), 0, 1))


def dimension_metrics(
    scores: np.ndarray, values: np.ndarray, factors: np.ndarray
) -> dict[str, float]:
    """Return LMS, MSAS and MIG of the scores, and SAP of the values."""
    of_information = axis_scores(scores)
    return {
        "LMS": of_information["LMS"], "MSAS": of_information["MSAS"], "MIG": of_information["MSGS"],
        "SAP": axis_scores(_linear(values, factors))["MSGS"],
    }  # fmt: skip


def _linear(values: np.ndarray, factors: np.ndarray) -> np.ndarray:
    """Return squared correlations, ``(n_dimensions, n_factors)``. They are R² of one dimension."""
    standard = []
    for part in (values, factors):
        spread = part.std(axis=0)
        standard.append((part - part.mean(axis=0)) / np.where(spread > 0, spread, 1.0))
    return np.asarray(np.square(standard[0].T @ standard[1] / len(values)))


def dci(values: np.ndarray, factors: np.ndarray) -> dict[str, float]:
    """Return disentanglement, completeness and informativeness.

    Trees are fitted to the first half of the cells and predict the second half, so cells must be in
    random order.
    """
    half = len(values) // 2
    n_cells = min(half, MOST_CELLS)
    fitted, held_out = slice(n_cells), slice(half, half + n_cells)
    importance, explained = [], []
    for factor in factors.T:
        trees = ExtraTreesRegressor(N_TREES, min_samples_leaf=LEAF_CELLS, random_state=0)
        trees.fit(values[fitted], factor[fitted])
        importance.append(trees.feature_importances_)
        explained.append(max(0.0, trees.score(values[held_out], factor[held_out])))
    weights = np.column_stack(importance)
    return {
        "DCI disentanglement": _concentration(weights),
        "DCI completeness": _concentration(weights.T),
        "DCI informativeness": float(np.mean(explained)),
    }


def _concentration(weights: np.ndarray) -> float:
    """Return 1 minus the relative entropy of rows, as a mean with the sums of rows as weights.

    With one column, every row has all its weight there, and the result is NaN.
    """
    sums = weights.sum(axis=1)
    if weights.shape[1] == 1 or not sums.any():
        return float("nan")
    shares = weights[sums > 0] / sums[sums > 0, None]
    rows = 1 - entr(shares).sum(axis=1) / np.log(weights.shape[1])
    return float(np.clip(np.average(rows, weights=sums[sums > 0]), 0, 1))
