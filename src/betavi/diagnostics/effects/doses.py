"""Dose curves: posterior of the half-effective dose and the slope of a Hill curve, on a grid."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

SLOPES = (0.5, 0.71, 1.0, 1.41, 2.0, 2.83, 4.0)
"""Slopes of Hill curves on the grid, with equal prior weights."""

N_EC50, OUTSIDE = 145, 10.0
"""Number of half-effective doses on the grid, and how far it exceeds the measured doses."""


BLOCK_VALUES = 2**13
"""Number of values that are computed at once, so that they stay in the cache of the processor."""


class DoseCurves(NamedTuple):
    """Posterior of the Hill curve of each perturbation.

    Parameters
    ----------
    log_ec50
        Natural logarithms of half-effective doses at the points of each perturbation's grid,
        ``(n_perturbations, n_points)``.
    slope
        Slopes at the points of all grids, ``(n_points,)``.
    weights
        Posterior weights, ``(n_perturbations, n_points)``.
    """

    log_ec50: np.ndarray
    slope: np.ndarray
    weights: np.ndarray

    @classmethod
    def start(cls, doses: Sequence[np.ndarray]) -> DoseCurves:
        """Return a grid around the measured doses of each perturbation, with equal weights."""
        ends = np.log([(each.min() / OUTSIDE, each.max() * OUTSIDE) for each in doses])
        shares, slope = np.array(list(product(np.linspace(0, 1, N_EC50), SLOPES))).T
        log_ec50 = ends[:, :1] + shares * (ends[:, 1:] - ends[:, :1])
        return cls(log_ec50, slope, np.full_like(log_ec50, 1 / len(slope)))

    def of(self, part: int) -> DoseCurves:
        """Return the grid of one perturbation, ``(n_points,)``."""
        return DoseCurves(self.log_ec50[part], self.slope, self.weights[part])

    def means(self) -> tuple[np.ndarray, np.ndarray]:
        """Return posterior means of the log half-effective dose and, on a log scale, of the slope."""
        log_ec50 = (self.weights * self.log_ec50).sum(axis=1)
        return log_ec50, np.exp(self.weights @ np.log(self.slope))

    def quantile(self, share: float) -> np.ndarray:
        """Return quantiles of the log half-effective doses, ``(n_perturbations,)``."""
        levels = self.log_ec50[:, :: len(SLOPES)]
        marginal = self.weights.reshape(*levels.shape, len(SLOPES)).sum(axis=2)
        # mass of a point is spread evenly up to the middle between it and its neighbours
        middles = (levels[:, 1:] + levels[:, :-1]) / 2
        edges = np.concatenate([levels[:, :1], middles, levels[:, -1:]], axis=1)
        reached = np.concatenate([np.zeros((len(marginal), 1)), marginal.cumsum(axis=1)], axis=1)
        return np.array([np.interp(share, *each) for each in zip(reached, edges, strict=True)])


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
    curves: DoseCurves,
    doses: np.ndarray,
    responses: np.ndarray,
    information: np.ndarray,
    scale_weights: np.ndarray,
    scales: np.ndarray,
) -> np.ndarray:
    """Return the posterior weights of the curves of one perturbation, ``(n_points,)``.

    The effects of the genes are integrated over their prior.

    Parameters
    ----------
    curves
        Grid of the perturbation, a result of :meth:`DoseCurves.of`.
    doses
        Dose of each group of cells, ``(n_groups,)``.
    responses, information
        Log fold changes of the groups and their inverse variances, ``(n_groups, n_genes)``.
    scale_weights, scales
        Weights and standard deviations of the mixture that is the prior of effects,
        ``(n_components,)``.
    """
    levels = hill(doses[None], curves.log_ec50[:, None], curves.slope[:, None])
    step = max(1, BLOCK_VALUES // information.shape[1])
    total = np.concatenate(
        [
            _log_evidence(
                some**2 @ information, some @ (information * responses), scale_weights, scales
            )
            for some in (levels[start : start + step] for start in range(0, len(levels), step))
        ]
    )
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
