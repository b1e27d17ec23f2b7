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
    squares = levels**2 @ information
    products = levels @ (information * responses)
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
