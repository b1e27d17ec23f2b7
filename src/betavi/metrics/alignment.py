"""Whether two assays of a cell are in the same place, and whether intervals hold."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy.spatial.distance import cdist

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

CELLS_AT_ONCE = 1024


def foscttm(one: ArrayLike, other: ArrayLike) -> float:
    """Return the fraction of samples closer than the true match.

    Parameters
    ----------
    one, other
        Positions of the same cells by two assays, ``(n_cells, n_latent)``.

    Returns
    -------
    The mean over cells, and over both directions, of the share of other cells that are closer to a
    cell's position in one than its own position in the other: 0 if assays agree, 0.5 by chance. Of
    equally close ones half count. Liu et al. (2019), Jointly embedding multiple single-cell omics
    measurements.

    Raises
    ------
    ValueError
        If shapes differ, or there are fewer than two cells.

    Examples
    --------
    >>> import numpy as np
    >>> from betavi.metrics import foscttm
    >>> cells = np.arange(5.0)[:, None]
    >>> foscttm(cells, cells + 0.1), foscttm(cells, np.zeros((5, 1)))
    (0.0, 0.5)
    """
    one, other = np.asarray(one, dtype=float), np.asarray(other, dtype=float)
    if one.shape != other.shape or len(one) < 2:
        raise ValueError(
            f"foscttm takes two arrays of the same two cells or more, not {one.shape} and "
            f"{other.shape}."
        )
    return (_closer(one, other) + _closer(other, one)) / 2


def _closer(one: np.ndarray, other: np.ndarray) -> float:
    total = 0.0
    for start in range(0, len(one), CELLS_AT_ONCE):
        distances = cdist(one[start : start + CELLS_AT_ONCE], other)
        own = distances[np.arange(len(distances)), np.arange(start, start + len(distances))]
        ranks = (distances < own[:, None]).sum(axis=1)
        # a cell is as close to its own match as itself
        ties = (distances == own[:, None]).sum(axis=1) - 1
        total += float((ranks + ties / 2).sum())
    return total / (len(one) * (len(one) - 1))


def score_translation(
    predicted: ArrayLike, truth: ArrayLike, lower: ArrayLike, upper: ArrayLike
) -> pd.DataFrame:
    """Return how good the prediction of each feature is, and whether its interval holds.

    Parameters
    ----------
    predicted, truth
        Values on the same scale, ``(n_cells, n_features)``.
    lower, upper
        Ends of the interval of each.

    Returns
    -------
    By feature: ``pearson``, NaN where either is constant; ``rmse``; ``coverage``, the share of cells
    whose value is in the interval; its mean ``width``; and ``r2``, the share of variance explained,
    negative where the feature's mean predicts better.

    Examples
    --------
    >>> import numpy as np
    >>> from betavi.metrics import score_translation
    >>> truth = np.array([[0.0], [1.0], [2.0]])
    >>> table = score_translation(truth, truth, truth - 1, truth + 1)
    >>> table.round(3).to_dict("records")
    [{'pearson': 1.0, 'rmse': 0.0, 'coverage': 1.0, 'width': 2.0, 'r2': 1.0}]
    """
    values = [np.asarray(part, dtype=float) for part in (predicted, truth, lower, upper)]
    predicted, truth, lower, upper = values
    error, spread = np.square(predicted - truth).mean(axis=0), truth.var(axis=0)
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
            "coverage": ((truth >= lower) & (truth <= upper)).mean(axis=0),
            "width": (upper - lower).mean(axis=0),
            "r2": r2,
        }
    )
