"""Scores of a translation for each feature."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

ROUNDING = 1e-6


def is_inside(truth: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
    """Return True for values inside their interval, or at one of its ends.

    Parameters
    ----------
    truth, lower, upper
        Values, and lower and upper ends of their intervals, of the same shape.

    Returns
    -------
    Mask of the same shape.

    Examples
    --------
    >>> import numpy as np
    >>> from betavi.diagnostics import is_inside
    >>> is_inside(np.array([1.0, 2.0]), np.zeros(2), np.ones(2)).tolist()
    [True, False]
    """
    # counts often equal an end of the interval, up to single precision
    slack = ROUNDING * (1 + np.abs(truth))
    inside: np.ndarray = (truth >= lower - slack) & (truth <= upper + slack)
    return inside


def binomial_error(share: np.ndarray, n: int) -> np.ndarray:
    """Return the standard error of a share of ``n`` values, above 0 for a share of 0 or 1.

    One value is added to both sides (Agresti & Coull, 1998).

    Parameters
    ----------
    share
        Shares, of any shape.
    n
        Number of values of each share.

    Returns
    -------
    Standard errors, same shape.

    Examples
    --------
    >>> import numpy as np
    >>> from betavi.diagnostics import binomial_error
    >>> binomial_error(np.array([0.9, 1.0]), 100).round(3).tolist()
    [0.031, 0.01]
    """
    moved = (n * share + 1) / (n + 2)
    error: np.ndarray = np.sqrt(moved * (1 - moved) / n)
    return error


def score_translation(
    predicted: ArrayLike, truth: ArrayLike, lower: ArrayLike, upper: ArrayLike
) -> pd.DataFrame:
    """Score the prediction of each feature, and the coverage of its interval.

    Parameters
    ----------
    predicted
        Predicted values, ``(n_cells, n_features)``.
    truth
        True values, same shape and scale.
    lower, upper
        Lower and upper end of the intervals, same shape and scale.

    Returns
    -------
    One row per feature: ``pearson``, NaN if predictions or true values are constant; ``rmse``;
    ``coverage``, the share of cells with the true value in the interval, and ``coverage_error``, its
    standard error from the binomial distribution; ``width``, the mean width of the interval; ``r2``, the share of variance explained, negative if the mean predicts better.

    Examples
    --------
    >>> truth = np.array([[0.0], [1.0], [2.0]])
    >>> score_translation(truth, truth, truth - 1, truth + 1).round(3).to_dict("records")
    [{'pearson': 1.0, 'rmse': 0.0, 'coverage': 1.0, 'coverage_error': 0.231, 'width': 2.0, 'r2': 1.0}]
    """
    predicted, truth = np.asarray(predicted, dtype=float), np.asarray(truth, dtype=float)
    lower, upper = np.asarray(lower, dtype=float), np.asarray(upper, dtype=float)
    error, spread = np.square(predicted - truth).mean(axis=0), truth.var(axis=0)
    inside = is_inside(truth, lower, upper)
    products = (predicted - predicted.mean(axis=0)) * (truth - truth.mean(axis=0))
    with np.errstate(invalid="ignore", divide="ignore"):
        pearson = products.mean(axis=0) / (predicted.std(axis=0) * truth.std(axis=0))
        r2 = 1 - error / spread
    return pd.DataFrame(
        {
            "pearson": pearson,
            "rmse": np.sqrt(error),
            "coverage": (coverage := inside.mean(axis=0)),
            "coverage_error": binomial_error(coverage, len(truth)),
            "width": (upper - lower).mean(axis=0),
            "r2": r2,
        }
    )
