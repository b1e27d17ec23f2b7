"""Variances of few replicates, moderated by all perturbations, and intervals and tests from them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import special, stats

FEWEST_GROUPS, GROUPS_PER_TERM, MOST_TERMS = 3, 15, 4
HEAVY = 4.0  # prior degrees of freedom below which the mean of variances is unstable
SMALLEST = 1e-5  # relative to the median variance, because values may be rounded


@dataclass(frozen=True, eq=False)
class Noise:
    """Moderated variance of one measurement, degrees of freedom and size of groups, ``(n_groups,)``.

    ``residuals`` are those of all groups, with variance 1.
    """

    variance: np.ndarray
    df: np.ndarray
    size: np.ndarray
    residuals: np.ndarray
    prior: np.ndarray

    def errors(self, group: int, n_draws: int, seed: int) -> np.ndarray:
        """Return resampled errors of a group's mean, ``(n_draws,)``."""
        rng = np.random.default_rng([seed, group])
        df, size = self.df[group], self.size[group]
        if df == 0:
            return np.full(n_draws, np.nan)
        means = rng.choice(self.residuals, (n_draws, size)).mean(axis=1)
        # the variance is uncertain, too: without it, intervals of few replicates are too short
        return means * np.sqrt(self.variance[group] * df / rng.chisquare(df, n_draws))


def moderate(values: np.ndarray, groups: np.ndarray, location: np.ndarray) -> Noise:
    """Return moderated variances of groups, after limma.

    ``values`` and ``groups`` are ``(n,)``, the number of each value's group among them; ``location``
    is ``(n_groups,)``, for example the mean. Variances are shrunk towards a trend over it.
    """
    size = np.bincount(groups, minlength=len(location))
    mean = np.bincount(groups, values, len(location)) / size
    residuals = values - mean[groups]
    df = size - 1.0
    squares = np.bincount(groups, residuals**2, len(location))
    variance = np.divide(squares, df, out=np.zeros_like(squares), where=df > 0)
    if not variance.any():
        raise ValueError(
            "Noise cannot be estimated: every perturbation has one measurement, or equal ones. "
            "Pass measurements of all replicates, not their means."
        )
    has = df > 0
    variance[has] = np.maximum(variance[has], SMALLEST * np.median(variance[variance > 0]))
    prior, prior_df = _prior(variance, df, location)
    total = df + prior_df
    pooled = prior_df * prior + df * variance
    moderated = np.divide(pooled, total, out=np.full_like(pooled, np.nan), where=total > 0)
    inside = has[groups]
    scale = np.sqrt((moderated * np.divide(df, size))[groups[inside]])
    standard = residuals[inside] / scale
    standard /= np.sqrt(np.square(standard).mean())
    return Noise(moderated, total, size, standard, prior)


def _prior(
    variance: np.ndarray, df: np.ndarray, location: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the prior variance and the prior degrees of freedom of each group."""
    has = df > 0
    if has.sum() < FEWEST_GROUPS:
        return np.full_like(variance, variance[has].mean()), np.zeros_like(df)
    half = df[has] / 2
    logs = np.log(variance[has]) - special.digamma(half) + np.log(half)
    spread = special.polygamma(1, half)
    terms = _trend_terms(location, has)
    trend = terms @ _least_squares(terms[has], logs, spread)[0]
    square = np.square(logs - trend[has]).sum() / (has.sum() - terms.shape[1])
    excess = max(square - spread.mean(), 1e-4)
    coefficients, covariance = _least_squares(terms[has], logs, spread + excess)
    trend = terms @ coefficients
    error = np.einsum("ij,jk,ik->i", terms, covariance, terms)
    common_df, prior_df = 2 * inverse_trigamma(excess), 2 * inverse_trigamma(excess + error)
    if common_df <= HEAVY:
        return np.exp(trend + special.digamma(common_df / 2) - np.log(common_df / 2)), prior_df
    # means of variances, because those of logarithms are too low with heavy tails
    ratio = np.average(variance[has] / np.exp(trend[has]), weights=df[has])
    return np.exp(trend) * ratio * (1 - 2 / common_df), prior_df


def _trend_terms(location: np.ndarray, has: np.ndarray) -> np.ndarray:
    """Return powers of the location, more for more groups, constant outside of their range."""
    n_terms = int(np.clip(has.sum() // GROUPS_PER_TERM, 1, MOST_TERMS))
    centred = (location - location[has].mean()) / (location[has].std() or 1.0)
    return np.vander(np.clip(centred, centred[has].min(), centred[has].max()), n_terms)


def _least_squares(
    terms: np.ndarray, values: np.ndarray, variance: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return coefficients of weighted least squares, and their covariance."""
    covariance = np.linalg.pinv(terms.T @ (terms / variance[:, None]))
    return covariance @ (terms.T @ (values / variance)), covariance


def inverse_trigamma(value: np.ndarray | float) -> np.ndarray:
    """Solve trigamma(x) = value by Newton's method on 1 / trigamma, which is convex."""
    x = 0.5 + 1 / np.asarray(value, dtype=float)
    for _ in range(50):
        trigamma = special.polygamma(1, x)
        step = trigamma * (1 - trigamma / value) / special.polygamma(2, x)
        x = x + step
        if np.all(np.abs(step) < 1e-8 * x):
            break
    return x


@dataclass(frozen=True, eq=False)
class Contrasts:
    """Weighted sums of group means: groups and weights, both ``(n_contrasts, n_terms)``."""

    estimates: np.ndarray
    groups: np.ndarray
    weights: np.ndarray

    def p_values(self, noise: Noise) -> np.ndarray:
        """Return two-sided p-values of Welch's t test with moderated variances."""
        parts = self.weights**2 * noise.variance[self.groups] / noise.size[self.groups]
        df = noise.df[self.groups]
        square = parts.sum(axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            # the degrees of freedom of Satterthwaite
            total = square**2 / (parts**2 / df).sum(axis=1)
            found = 2 * stats.t.sf(np.abs(self.estimates) / np.sqrt(square), total)
        return np.where((df > 0).all(axis=1), found, np.nan)

    def intervals(self, noise: Noise, level: float, n_draws: int, seed: int) -> np.ndarray:
        """Return bootstrap intervals, ``(n_contrasts, 2)``."""
        shared: dict[int, np.ndarray] = {}
        ends = np.empty((len(self.estimates), 2))
        for row, (groups, weights) in enumerate(zip(self.groups, self.weights, strict=True)):
            # the first group belongs to this contrast only
            total = weights[0] * noise.errors(int(groups[0]), n_draws, seed)
            for group, weight in zip(groups[1:].tolist(), weights[1:], strict=True):
                if group not in shared:
                    shared[group] = noise.errors(group, n_draws, seed)
                total = total + weight * shared[group]
            tails = np.quantile(total, [(1 + level) / 2, (1 - level) / 2])
            ends[row] = self.estimates[row] - tails
        return ends
