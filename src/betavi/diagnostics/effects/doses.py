"""Dose curves: posterior of the half-effective dose and the slope of a Hill curve, on a grid."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

SLOPES = (0.5, 4.0)
"""Smallest and largest slope of a Hill curve. Slopes have equal prior weights on a log scale."""

N_EC50, N_SLOPES, OUTSIDE = 61, 31, 10.0
"""Numbers of half-effective doses and slopes on a grid, and how far it exceeds the measured doses."""

N_ERRORS = 4.0
"""Distance between the middle and the ends of a refined grid, in standard deviations. Not tuned."""


BLOCK_VALUES = 2**13
"""Number of values that are computed at once, so that they stay in the cache of the processor."""


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
    def start(cls, doses: Sequence[np.ndarray]) -> DoseCurves:
        """Return a grid around the measured doses of each perturbation, with equal weights."""
        n = len(doses)
        middle, spread = np.zeros((n, 2)), np.full((n, 2), np.inf)
        return cls(
            *_grids(middle, spread, doses), np.full((n, N_EC50, N_SLOPES), 1 / (N_EC50 * N_SLOPES))
        )

    def refined(self, doses: Sequence[np.ndarray]) -> DoseCurves:
        """Return a grid around the posterior, with equal weights. ``doses`` are those measured."""
        marginals = self.weights.sum(axis=2), self.weights.sum(axis=1)
        moments = [
            _moments(points, weights) for points, weights in zip(self[:2], marginals, strict=True)
        ]
        middle, spread = (np.stack(each, axis=1) for each in zip(*moments, strict=True))
        weights = np.full_like(self.weights, 1 / (N_EC50 * N_SLOPES))
        return DoseCurves(*_grids(middle, spread, doses), weights)

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


def _grids(
    middle: np.ndarray, spread: np.ndarray, doses: Sequence[np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Return log half-effective doses and log slopes in equal steps around the middle."""
    ends = np.log([(each.min() / OUTSIDE, each.max() * OUTSIDE) for each in doses])
    slopes = np.broadcast_to(np.log(SLOPES), ends.shape)
    sizes = (N_EC50, N_SLOPES)
    log_ec50, log_slope = (
        _between(middle[:, axis], spread[:, axis], each, sizes[axis])
        for axis, each in enumerate((ends, slopes))
    )
    return log_ec50, log_slope


def _moments(points: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return means and standard deviations, which are at least the distance of the points."""
    mean = (weights * points).sum(axis=1)
    variance = (weights * np.square(points - mean[:, None])).sum(axis=1)
    return mean, np.maximum(np.sqrt(variance), points[:, 1] - points[:, 0])


def _between(middle: np.ndarray, spread: np.ndarray, ends: np.ndarray, n_points: int) -> np.ndarray:
    """Return equal steps around the middle, inside the ends, ``(n_perturbations, n_points)``."""
    low = np.clip(middle - N_ERRORS * spread, *ends.T)
    high = np.clip(middle + N_ERRORS * spread, *ends.T)
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
    weighted_responses = information * responses
    pull = lost * weighted_responses.sum(axis=0)

    def evidence_of(some: np.ndarray) -> np.ndarray:
        total = some @ information
        squares = some**2 @ information - lost * total**2
        products = some @ weighted_responses - pull * total
        return _log_evidence(squares, products, scale_weights, scales)

    step = max(1, BLOCK_VALUES // information.shape[1])
    starts = range(0, len(levels), step)
    total = np.concatenate([evidence_of(levels[start : start + step]) for start in starts])
    weights: np.ndarray = np.exp(total - total.max())
    return weights / weights.sum()


def _log_evidence(
    squares: np.ndarray, products: np.ndarray, weights: np.ndarray, scales: np.ndarray
) -> np.ndarray:
    """Return the log evidence of curves, ``(n_points,)``, from sums over the groups of cells.

    ``squares`` and ``products`` are the precisions of the effects and the precisions times the means,
    ``(n_points, n_genes)``.
    """
    squares_of_scale = np.square(scales)[:, None, None]
    fits = 0.5 * products**2 / (squares + 1 / squares_of_scale)
    fits += np.log(np.maximum(weights, 1e-300))[:, None, None]
    largest = fits.max(axis=0)
    terms = np.exp(fits - largest) / np.sqrt(1 + squares * squares_of_scale)
    total: np.ndarray = (largest + np.log(terms.sum(axis=0))).sum(axis=1)
    return total
