"""Distances between the distributions of two samples."""

from __future__ import annotations

import numpy as np
from scipy.spatial.distance import cdist, pdist


def maximum_mean_discrepancy(
    one: np.ndarray, two: np.ndarray, bandwidth: float | None = None
) -> float:
    r"""Return the unbiased squared maximum mean discrepancy of two samples.

    The kernel is :math:`\exp(-\|x - y\|^2 / (2 h^2))`. For two samples of the same distribution,
    the result is 0 on average, and can be negative.

    Parameters
    ----------
    one, two
        The two samples, ``(n, n_features)`` and ``(m, n_features)``.
    bandwidth
        Bandwidth ``h`` of the kernel. If None, the median distance between all points.

    Returns
    -------
    Squared discrepancy, without a unit, at most 2.

    Raises
    ------
    ValueError
        If a sample has fewer than two points.

    References
    ----------
    Gretton et al. (2012), A kernel two-sample test.

    Examples
    --------
    >>> one, two = np.random.default_rng(0).normal(size=(2, 200, 3))
    >>> maximum_mean_discrepancy(one, two) < 0.01 < maximum_mean_discrepancy(one, two + 1)
    True
    """
    n, m = _sizes(one, two)
    if bandwidth is None:
        bandwidth = float(np.median(pdist(np.vstack([one, two])))) or 1.0
    within_one, within_two, between = (
        np.exp(-cdist(left, right, "sqeuclidean") / (2 * bandwidth**2))
        for left, right in ((one, one), (two, two), (one, two))
    )
    # without each point's kernel with itself, which is 1
    inside = (within_one.sum() - n) / (n * (n - 1)) + (within_two.sum() - m) / (m * (m - 1))
    return float(inside - 2 * between.mean())


def energy_distance(one: np.ndarray, two: np.ndarray) -> float:
    """Return the energy distance :math:`2 E|X - Y| - E|X - X'| - E|Y - Y'|` of two samples.

    Parameters
    ----------
    one, two
        The two samples, ``(n, n_features)`` and ``(m, n_features)``.

    Returns
    -------
    Distance in the unit of the features. For samples of the same distribution, the distance is 0 on
    average.

    Raises
    ------
    ValueError
        If a sample has fewer than two points.

    References
    ----------
    Székely & Rizzo (2013), Energy statistics: a class of statistics based on distances.

    Examples
    --------
    >>> energy_distance(np.zeros((5, 1)), np.ones((5, 1)))
    2.0
    """
    _sizes(one, two)
    return float(2 * cdist(one, two).mean() - pdist(one).mean() - pdist(two).mean())


def _sizes(one: np.ndarray, two: np.ndarray) -> tuple[int, int]:
    n, m = len(one), len(two)
    if min(n, m) < 2:
        raise ValueError(
            f"The samples have {n} and {m} points. Each sample needs at least 2 points."
        )
    return n, m
