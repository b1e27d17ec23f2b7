"""Intervals of the counts in a new measurement of the same cells."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse, stats

from betavi.diagnostics.intervals import INTERVAL

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

SMALLEST_MEAN = 1e-8
"""Smallest expected count. The distribution of counts is not defined at 0."""

LEAST_VARIANCE = 1e-6
"""Smallest variance of an expected count, in expected counts. Below it, counts are Poisson counts."""


def new_count_interval(mean: ArrayLike, std: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Return the 90 % interval of the counts in a new measurement of the same cells.

    The expected count is uncertain, and the new count has counting noise. If the expected count has
    a gamma distribution with this mean and standard deviation, the new count has a negative
    binomial distribution (Huang et al., 2018).

    Parameters
    ----------
    mean, std
        Denoised values and standard deviations, ``(n_cells, n_genes)``. For a measurement with
        another depth, multiply both by the ratio of the depths.

    Returns
    -------
    Smallest and largest count of the interval, same shape. Counts are whole numbers, so that an
    interval contains at least 90 % of new counts, and often more.

    Raises
    ------
    ValueError
        If shapes differ, or a value is negative or not finite.
    TypeError
        If an argument is sparse.

    References
    ----------
    Huang et al. (2018), SAVER: gene expression recovery for single-cell RNA sequencing.

    Examples
    --------
    >>> from betavi.diagnostics import new_count_interval
    >>> lower, upper = new_count_interval([[10.0, 10.0]], [[0.0, 4.0]])
    >>> lower.tolist(), upper.tolist()
    ([[5.0, 3.0]], [[15.0, 19.0]])
    """
    counts = _distribution(mean, std)
    tail = (1 - INTERVAL) / 2
    return counts.ppf(tail), counts.ppf(1 - tail)


def new_count_coverage(counts: ArrayLike, mean: ArrayLike, std: ArrayLike) -> np.ndarray:
    """Return how much of each new count is inside its 90 % interval.

    A count at an end of the interval is only partly inside: by the share that makes the expected
    coverage exactly 90 %, although counts are whole numbers (randomised quantiles of Dunn & Smyth,
    1996, averaged over the random part).

    Parameters
    ----------
    counts
        Counts of a new measurement, ``(n_cells, n_genes)``.
    mean, std
        See :func:`new_count_interval`.

    Returns
    -------
    Values between 0 and 1, same shape. Their mean is 0.9 if means and standard deviations are right.

    Raises
    ------
    ValueError
        If shapes differ, or a value is negative or not finite.
    TypeError
        If an argument is sparse.

    References
    ----------
    Dunn & Smyth (1996), Randomized quantile residuals.

    Examples
    --------
    >>> import numpy as np
    >>> from betavi.diagnostics import new_count_coverage
    >>> counts = np.random.default_rng(0).poisson(0.5, size=(20_000, 1))
    >>> rate = np.full(counts.shape, 0.5)
    >>> round(float(new_count_coverage(counts, rate, 0 * rate).mean()), 2)
    0.9
    """
    values, distribution = np.asarray(counts, dtype=float), _distribution(mean, std)
    tail = (1 - INTERVAL) / 2
    above, below = distribution.cdf(values), distribution.cdf(values - 1)
    inside = np.clip(np.minimum(above, 1 - tail) - np.maximum(below, tail), 0, None)
    share: np.ndarray = inside / np.maximum(above - below, np.finfo(float).tiny)
    return share


def _distribution(mean: ArrayLike, std: ArrayLike) -> stats.rv_discrete:
    """Return the negative binomial distribution of new counts."""
    if sparse.issparse(mean) or sparse.issparse(std):
        raise TypeError(
            "`mean` and `std` are sparse, so values below `drop_below` are missing, and their intervals "
            "would be wrong. Denoise without drop_below: model.denoise(std_layer_added=...)"
        )
    values, errors = np.asarray(mean, dtype=float), np.asarray(std, dtype=float)
    is_valid = np.isfinite(values) & np.isfinite(errors) & (values >= 0) & (errors >= 0)
    if values.shape != errors.shape or not is_valid.all():
        raise ValueError(
            "`mean` and `std` must have the same shape, and values that are finite and at least 0. "
            "Use the denoised values and standard deviations of model.denoise()."
        )
    values = np.maximum(values, SMALLEST_MEAN)
    shape = np.square(values) / np.maximum(np.square(errors), LEAST_VARIANCE * values)
    return stats.nbinom(shape, shape / (shape + values))
