"""Metrics of latent spaces for continuous factors: LMS, MSAS, MIG, SAP and DCI."""

from __future__ import annotations

import numpy as np
from scipy.special import entr
from sklearn.ensemble import ExtraTreesRegressor

from betavi.diagnostics import axis_scores
from betavi.diagnostics.dimension_relations import contingency

MOST_CELLS = 1000  # in the half that trees are fitted to, and in the half that they predict
N_TREES, LEAF_CELLS = 10, 5


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


def measures(
    values: np.ndarray, factors: np.ndarray, scores: np.ndarray, with_trees: bool
) -> dict[str, float]:
    """Return all metrics of a latent space, without DCI if ``with_trees`` is False."""
    of_information = axis_scores(scores)
    found = {
        "LMS": of_information["LMS"], "MSAS": of_information["MSAS"], "MIG": of_information["MSGS"],
        "SAP": axis_scores(_linear(values, factors))["MSGS"],
    }  # fmt: skip
    return found | dci(values, factors) if with_trees else found


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
