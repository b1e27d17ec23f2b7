"""Noise between replicates of a condition, beyond the noise of their cells."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.optimize import brentq, nnls
from scipy.special import digamma, polygamma

FIRST_TREND, N_ROUNDS = 0.1, 3
"""First variance between replicates, and number of times that its trend is estimated. Not tuned."""

SMALLEST = 1e-9
"""Smallest number that a sum is divided by. Not tuned."""

MOST_FREEDOM = 1e6
"""Degrees of freedom of the prior if all features follow the trend."""

FEWEST_FEATURES = 10
"""Number of features with enough counts from which the prior is estimated. With fewer, all follow the trend.
Not tuned."""


class ReplicateNoise(NamedTuple):
    """Variance of log rates between replicates, and its degrees of freedom, both ``(n_features,)``."""

    variance: np.ndarray
    freedom: np.ndarray


class _Squares(NamedTuple):
    """Squared differences between replicates of each condition, ``(n_conditions, n_features)``.

    ``error`` is their sum over the expected counts. It is ``by_cells`` without noise, and grows by
    ``slope`` times the noise. The noise of the mean is ``share`` of that of a replicate. ``counts`` are
    those of one replicate, ``trust`` is small if these are few, and ``freedom`` is ``(n_conditions, 1)``.
    """

    error: np.ndarray
    by_cells: np.ndarray
    slope: np.ndarray
    share: np.ndarray
    counts: np.ndarray
    trust: np.ndarray
    freedom: np.ndarray


class _Totals(NamedTuple):
    """Weighted sums of squares over all conditions, ``(n_features,)``.

    ``expected`` is that of ``error`` under the trend, and ``freedom`` are its degrees of freedom.
    """

    error: np.ndarray
    by_cells: np.ndarray
    slope: np.ndarray
    expected: np.ndarray
    freedom: np.ndarray


def no_noise(n_features: int) -> ReplicateNoise:
    """Return the noise of groups without replicates."""
    return ReplicateNoise(np.zeros(n_features), np.full(n_features, np.inf))


def replicate_noise(
    counts: np.ndarray,
    rate: np.ndarray,
    inflation: np.ndarray,
    member: np.ndarray,
    n_lost: int = 0,
) -> ReplicateNoise:
    """Return the variance of log rates between replicates of each feature.

    Sums of counts are compared with those of the other replicates of their condition. Their variance
    by the noise of cells is subtracted, in proportion to the counts of the condition. This has no bias
    for few counts, and if the expected counts of a condition are wrong by a factor.

    Few replicates give a poor estimate of a feature's variance. It is therefore moderated: the total
    variance of each feature is averaged with a trend by the feature's counts. The degrees of freedom of
    the trend are estimated from how far the features spread around it.

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
    Smyth (2004), Linear models and empirical Bayes methods for assessing differential expression.
    Anders & Huber (2010), Differential expression analysis for sequence count data. DerSimonian & Laird
    (1986), Meta-analysis in clinical trials.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> rate = np.full((40, 200), 100.0)
    >>> counts = rng.poisson(rate * rng.gamma(4, 0.25, (40, 200)))
    >>> noise = replicate_noise(counts, rate, np.ones(200), np.arange(40) // 4)
    >>> float(noise.variance.mean().round(2))
    0.24
    """
    n_groups = np.bincount(member)
    n_free = int(n_groups.sum() - len(n_groups))
    if n_free <= n_lost:
        return no_noise(rate.shape[1])
    squares = _squares(counts, rate, inflation, member, 1 - n_lost / n_free)
    # features with few counts weigh little
    sizes = np.maximum(squares.trust.sum(axis=0), np.finfo(float).tiny)
    mean = (squares.trust * squares.counts).sum(axis=0) / sizes
    shape = np.stack([np.ones_like(mean), 1 / (1 + mean / inflation)])
    trend = np.full_like(mean, FIRST_TREND)
    for _ in range(N_ROUNDS):
        total = _totals(squares, inflation, trend)
        fit = np.sqrt(total.freedom) / total.expected
        excess = fit * (total.error - total.by_cells)
        trend = np.maximum(nnls((fit * total.slope * shape).T, excess)[0] @ shape, SMALLEST)
    ratio = total.error / (total.by_cells + trend * total.slope)
    is_known = total.freedom > 0.5 * squares.freedom.sum()
    prior_freedom, centre = prior_of(ratio[is_known], total.freedom[is_known])
    freedom = prior_freedom + total.freedom
    moderated = (prior_freedom * centre + total.freedom * ratio) / freedom
    # variance of a log rate by the cells of a replicate
    by_cells = inflation / np.maximum(mean, inflation)
    variance = np.maximum(moderated * (by_cells + trend) - by_cells, 0.0)
    return ReplicateNoise(variance, np.minimum(freedom, total.freedom.sum()))


def _squares(
    counts: np.ndarray,
    rate: np.ndarray,
    inflation: np.ndarray,
    member: np.ndarray,
    remaining: float,
) -> _Squares:
    """Return squared differences of each condition. ``remaining`` are its degrees of freedom, relative."""
    n_groups = np.bincount(member)[:, None]
    freedom = (n_groups - 1) * remaining
    expected = np.maximum(_sums(rate, member), np.finfo(float).tiny)
    factor = _sums(counts, member) / expected
    by_cells = inflation * factor
    share = _sums(rate**2, member) / expected / expected
    size = remaining * expected * (1 - share)
    return _Squares(
        error=_sums((counts - factor[member] * rate) ** 2 / rate, member),
        by_cells=freedom * by_cells,
        slope=np.maximum(factor**2 - by_cells / expected, 0.0) * size,
        share=share,
        counts=expected / n_groups,
        trust=expected / (expected + inflation * n_groups),
        freedom=freedom,
    )


def _totals(squares: _Squares, inflation: np.ndarray, trend: np.ndarray) -> _Totals:
    """Return sums of squares in which conditions are weighted by their variance under a trend."""
    variance = inflation + trend * squares.counts
    weight = squares.trust / variance
    # squares of small counts vary more than those of normal values
    heavy = 1 + 0.5 * inflation / np.maximum(squares.counts, np.finfo(float).tiny)
    parts = weight * squares.freedom * variance
    spread = (parts**2 * heavy / np.maximum(squares.freedom, SMALLEST)).sum(axis=0)
    # noise also makes the square of a mean larger
    slope = squares.slope / (1 + trend * squares.share)
    error, by_cells, slope, expected = (
        np.maximum((weight * part).sum(axis=0), SMALLEST)
        for part in (squares.error, squares.by_cells, slope, squares.freedom * variance)
    )
    freedom = expected**2 / np.maximum(spread, SMALLEST)
    return _Totals(error, by_cells, slope, expected, freedom)


def prior_of(ratio: np.ndarray, freedom: np.ndarray) -> tuple[float, float]:
    """Return degrees of freedom and centre of the prior of variances.

    ``ratio`` are estimates relative to a trend, with their degrees of freedom, both ``(n_features,)``.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> ratio = rng.f(4, 10, size=5000)
    >>> prior_freedom, centre = prior_of(ratio, np.full(5000, 4.0))
    >>> round(prior_freedom), round(centre, 1)
    (11, 1.0)
    """
    if len(ratio) < FEWEST_FEATURES:
        return MOST_FREEDOM, 1.0
    logs = np.log(np.maximum(ratio, SMALLEST)) - digamma(freedom / 2) + np.log(freedom / 2)
    excess = logs.var(ddof=1) - polygamma(1, freedom / 2).mean()
    if excess <= polygamma(1, MOST_FREEDOM / 2):
        return MOST_FREEDOM, float(np.exp(logs.mean()))
    half = brentq(lambda half: polygamma(1, half) - excess, 1e-3, MOST_FREEDOM)
    return 2 * half, float(np.exp(logs.mean() + digamma(half) - np.log(half)))


def _sums(values: np.ndarray, member: np.ndarray) -> np.ndarray:
    sums = np.zeros((member.max() + 1, values.shape[1]))
    np.add.at(sums, member, values)
    return sums
