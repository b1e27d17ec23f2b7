"""Dose curves: posterior of the half-effective dose and the slope of a Hill curve, on a grid."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

SLOPES = (0.5, 4.0)
"""Smallest and largest slope of a Hill curve. Slopes have equal prior weights on a log scale."""

N_EC50, N_SLOPES, OUTSIDE = 61, 31, 10.0
"""Numbers of half-effective doses and slopes on a grid, and how far it exceeds the measured doses."""

N_ERRORS = 4.0
"""Distance between the middle and the ends of a refined grid, in standard deviations. Not tuned."""


class DoseCurves(NamedTuple):
    """Posterior of the Hill curve of each perturbation, on a grid of its own.

    Parameters
    ----------
    log_ec50
        Natural logarithms of half-effective doses on the grid, ``(n_perturbations, n_ec50)``.
    log_slope
        Natural logarithms of slopes on the grid, ``(n_perturbations, n_slopes)``.
    weights
        Posterior weights, ``(n_perturbations, n_ec50, n_slopes)``.
    """

    log_ec50: np.ndarray
    log_slope: np.ndarray
    weights: np.ndarray

    @classmethod
    def start(cls, doses: np.ndarray, n_perturbations: int) -> DoseCurves:
        """Return a grid around measured doses, with equal weights."""
        middle, ends = np.zeros((n_perturbations, 2)), dose_range(doses)
        return cls(
            _between(middle, np.full_like(middle, np.inf), ends, N_EC50, 0),
            _between(middle, np.full_like(middle, np.inf), ends, N_SLOPES, 1),
            np.full((n_perturbations, N_EC50, N_SLOPES), 1 / (N_EC50 * N_SLOPES)),
        )

    def refined(self, doses: np.ndarray) -> DoseCurves:
        """Return a grid around the posterior, with equal weights. ``doses`` are those measured."""
        marginals = self.weights.sum(axis=2), self.weights.sum(axis=1)
        moments = [
            _moments(points, weights) for points, weights in zip(self[:2], marginals, strict=True)
        ]
        middle, spread = (np.stack(each, axis=1) for each in zip(*moments, strict=True))
        ends = dose_range(doses)
        return DoseCurves(
            _between(middle, spread, ends, N_EC50, 0),
            _between(middle, spread, ends, N_SLOPES, 1),
            np.full_like(self.weights, 1 / (N_EC50 * N_SLOPES)),
        )

    def points(self, perturbation: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the log half-effective doses and slopes of all points, each ``(n_points,)``."""
        log_ec50, log_slope = np.meshgrid(
            self.log_ec50[perturbation], self.log_slope[perturbation], indexing="ij"
        )
        return log_ec50.ravel(), np.exp(log_slope.ravel())

    def means(self) -> tuple[np.ndarray, np.ndarray]:
        """Return posterior means of the log half-effective dose and, on a log scale, of the slope."""
        log_ec50 = (self.weights.sum(axis=2) * self.log_ec50).sum(axis=1)
        return log_ec50, np.exp((self.weights.sum(axis=1) * self.log_slope).sum(axis=1))

    def quantile(self, share: float) -> np.ndarray:
        """Return quantiles of the log half-effective doses, ``(n_perturbations,)``."""
        marginal, levels = self.weights.sum(axis=2), self.log_ec50
        # mass of a point is spread evenly up to the middle between it and its neighbours
        middles = (levels[:, 1:] + levels[:, :-1]) / 2
        edges = np.concatenate([levels[:, :1], middles, levels[:, -1:]], axis=1)
        reached = np.concatenate([np.zeros((len(marginal), 1)), marginal.cumsum(axis=1)], axis=1)
        return np.array([np.interp(share, *each) for each in zip(reached, edges, strict=True)])


def dose_range(doses: np.ndarray) -> np.ndarray:
    """Return the ends of log half-effective doses, and of log slopes, ``(2, 2)``."""
    ends = [[doses.min() / OUTSIDE, doses.max() * OUTSIDE], SLOPES]
    found: np.ndarray = np.log(np.array(ends))
    return found


def _moments(points: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return means and standard deviations, which are at least the distance of the points."""
    mean = (weights * points).sum(axis=1)
    variance = (weights * np.square(points - mean[:, None])).sum(axis=1)
    return mean, np.maximum(np.sqrt(variance), points[:, 1] - points[:, 0])


def _between(
    middle: np.ndarray, spread: np.ndarray, ends: np.ndarray, n_points: int, axis: int
) -> np.ndarray:
    """Return equal steps around the middle, inside the ends, ``(n_perturbations, n_points)``."""
    low = np.clip(middle[:, axis] - N_ERRORS * spread[:, axis], *ends[axis])
    high = np.clip(middle[:, axis] + N_ERRORS * spread[:, axis], *ends[axis])
    return np.linspace(low, high, n_points, axis=1)


def hill(doses: np.ndarray, log_ec50: np.ndarray, slope: np.ndarray) -> np.ndarray:
    """Return the share of the full effect at some doses, from 0 to 1.

    Examples
    --------
    >>> hill(np.array([1.0, 10.0]), np.log(10.0), np.array(1.0)).round(2).tolist()
    [0.09, 0.5]
    """
    shares: np.ndarray = 1 / (1 + np.exp(-slope * (np.log(doses) - log_ec50)))
    return shares


def curve_weights(
    levels: np.ndarray,
    responses: np.ndarray,
    information: np.ndarray,
    base_variance: np.ndarray,
    scale_weights: np.ndarray,
    scales: np.ndarray,
) -> np.ndarray:
    """Return the posterior weights of the curves of one perturbation, ``(n_points,)``.

    The effects of the genes are integrated over their prior, and their base levels over their posterior.

    Parameters
    ----------
    levels
        Share of the full effect at the dose of each group of cells, ``(n_points, n_groups)``.
    responses, information
        Log fold changes of the groups and their inverse variances, ``(n_groups, n_genes)``.
    base_variance
        Variance of the base level that the groups share, ``(n_genes,)``.
    scale_weights, scales
        Weights and standard deviations of the mixture that is the prior of effects,
        ``(n_components,)``.
    """
    lost = base_variance / (1 + base_variance * information.sum(axis=0))
    weighted = levels @ information
    squares = levels**2 @ information - lost * weighted**2
    weighted *= lost * (information * responses).sum(axis=0)
    products = levels @ (information * responses) - weighted
    halves = 0.5 * products**2
    evidence = np.stack(
        [
            np.log(max(weight, 1e-300))
            + halves / (squares + 1 / scale**2)
            - 0.5 * np.log1p(squares * scale**2)
            for weight, scale in zip(scale_weights, scales, strict=True)
        ]
    )
    largest = evidence.max(axis=0)
    total = (largest + np.log(np.exp(evidence - largest).sum(axis=0))).sum(axis=1)
    weights: np.ndarray = np.exp(total - total.max())
    return weights / weights.sum()
