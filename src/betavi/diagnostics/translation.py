"""Scores of a translation, feature by feature."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

ROUNDING = 1e-6


def score_translation(
    predicted: ArrayLike, truth: ArrayLike, lower: ArrayLike, upper: ArrayLike
) -> pd.DataFrame:
    """Score the prediction of each feature, and the coverage of its interval.

    Parameters
    ----------
    predicted, truth, lower, upper
        Values, and ends of intervals, on the same scale, ``(n_cells, n_features)``.

    Returns
    -------
    By feature: ``pearson``, NaN where either is constant; ``rmse``; ``coverage``, the share of
    cells whose value is in the interval; its mean ``width``; and ``r2``, the share of variance
    explained, negative where the feature's mean predicts better.

    Examples
    --------
    >>> truth = np.array([[0.0], [1.0], [2.0]])
    >>> score_translation(truth, truth, truth - 1, truth + 1).round(3).to_dict("records")
    [{'pearson': 1.0, 'rmse': 0.0, 'coverage': 1.0, 'width': 2.0, 'r2': 1.0}]
    """
    predicted, truth = np.asarray(predicted, dtype=float), np.asarray(truth, dtype=float)
    lower, upper = np.asarray(lower, dtype=float), np.asarray(upper, dtype=float)
    error, spread = np.square(predicted - truth).mean(axis=0), truth.var(axis=0)
    # counts often equal an end, up to single precision
    slack = ROUNDING * (1 + np.abs(truth))
    centred = predicted - predicted.mean(axis=0), truth - truth.mean(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        pearson = (centred[0] * centred[1]).mean(axis=0) / (
            predicted.std(axis=0) * truth.std(axis=0)
        )
        r2 = 1 - error / spread
    return pd.DataFrame(
        {
            "pearson": pearson,
            "rmse": np.sqrt(error),
            "coverage": ((truth >= lower - slack) & (truth <= upper + slack)).mean(axis=0),
            "width": (upper - lower).mean(axis=0),
            "r2": r2,
        }
    )
