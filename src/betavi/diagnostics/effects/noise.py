"""Noise between replicates of a condition, beyond the noise of their cells."""

from __future__ import annotations

import numpy as np

FIRST_VARIANCE, N_ROUNDS = 0.1, 20
"""First variance between replicates, and number of times that their mean is estimated. Not tuned."""

SMALLEST = 1e-9
"""Smallest number that a sum is divided by. Not tuned."""


def replicate_noise(
    counts: np.ndarray,
    rate: np.ndarray,
    inflation: np.ndarray,
    member: np.ndarray,
    n_lost: int = 0,
) -> np.ndarray:
    """Return the variance of log rates between replicates, ``(n_features,)``.

    Sums of counts are compared with those of the other replicates of their condition. Their variance
    by the noise of cells is subtracted, in proportion to the counts of the condition. This has no bias
    for few counts, and if the expected counts of a condition are wrong by a factor. The variance of each
    feature is shrunk towards that of all features. Their standard deviation around it is assumed to be
    as large as the variance itself. With two replicates of each condition, a large variance is estimated
    about a seventh too low.

    Parameters
    ----------
    counts
        Sums of counts over groups of cells, ``(n_groups, n_features)``.
    rate
        Expected counts, up to a factor of each condition, ``(n_groups, n_features)``.
    inflation
        Variance of counts over their mean due to the cells, ``(n_features,)``.
    member
        Code of the condition of each group, ``(n_groups,)``. Groups with one code are replicates.
    n_lost
        Degrees of freedom that other base levels take.

    References
    ----------
    DerSimonian & Laird (1986), Meta-analysis in clinical trials.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> rate = np.full((40, 200), 100.0)
    >>> counts = rng.poisson(rate * rng.gamma(4, 0.25, (40, 200)))
    >>> noise = replicate_noise(counts, rate, np.ones(200), np.arange(40) // 4)
    >>> float(noise.mean().round(2))
    0.23
    """
    n_groups = np.bincount(member)
    n_free = n_groups.sum() - len(n_groups)
    if n_free <= n_lost:
        return np.zeros(rate.shape[1])
    remaining = 1 - n_lost / n_free
    freedom = (n_groups - 1)[:, None] * remaining
    expected, squares = _sums(rate, member), _sums(rate**2, member)
    expected = np.maximum(expected, np.finfo(float).tiny)
    factor = _sums(counts, member) / expected
    error = _sums((counts - factor[member] * rate) ** 2 / rate, member)
    # conditions with few expected counts tell little about the noise
    weight = expected / (expected + inflation * n_groups[:, None]) / inflation
    by_cells = inflation * factor
    excess = (weight * (error - freedom * by_cells)).sum(axis=0)
    size = np.maximum(factor**2 - by_cells / expected, 0.0) * (expected - squares / expected)
    slope = remaining * (weight * size).sum(axis=0)
    used = np.maximum((weight * inflation * freedom).sum(axis=0), SMALLEST)
    return _shrunk(excess, slope, used)


def _shrunk(excess: np.ndarray, slope: np.ndarray, freedom: np.ndarray) -> np.ndarray:
    """Return variances ``excess / slope``, shrunk towards their mean, ``(n_features,)``."""
    common, slope = FIRST_VARIANCE, np.maximum(slope, SMALLEST)
    for _ in range(N_ROUNDS):
        signal = slope * common
        # a mean square has twice its squared expectation, over the degrees of freedom, as variance
        trust = signal**2 / (signal**2 + 2 * (freedom + signal) ** 2 / freedom)
        common = max((trust / slope * excess).sum() / trust.sum(), SMALLEST)
    own = np.maximum(excess / slope, 0.0)
    return trust * own + (1 - trust) * common


def _sums(values: np.ndarray, member: np.ndarray) -> np.ndarray:
    sums = np.zeros((member.max() + 1, values.shape[1]))
    np.add.at(sums, member, values)
    return sums
