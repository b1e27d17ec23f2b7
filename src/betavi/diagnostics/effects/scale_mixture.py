"""Prior of effects: a mixture of normal distributions around zero, with weights learned from data."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

SCALES = (0.0025, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6)
"""Standard deviations of the components, in natural log units. Not tuned."""

STRENGTH = 50.0
"""Number of features that the shared weights count as, against those of one effect. Not tuned."""

SMALLEST_VARIANCE = 1e-10
"""Smallest variance of an effect, against rounding. Not tuned."""


class ScaleMixture(NamedTuple):
    """Prior of the effects of several perturbations.

    Parameters
    ----------
    scale_weights
        Weights of the components for each effect, ``(n_effects, n_components)``.
    kinds
        Kind of each effect, ``(n_effects,)``. Effects of one kind share the centre of their weights.
    scales
        Standard deviations of the components, in natural log units.

    References
    ----------
    Stephens (2017), False discovery rates: a new deal.

    Examples
    --------
    >>> prior = ScaleMixture.start(np.zeros(2, dtype=int))
    >>> mean, _, _ = prior.shrunk(np.array([[0.1], [2.0]]), np.full((2, 1), 0.04))
    >>> (mean / [[0.1], [2.0]]).round(2).ravel().tolist()
    [0.15, 0.98]
    """

    scale_weights: np.ndarray
    kinds: np.ndarray
    scales: np.ndarray

    @classmethod
    def start(cls, kinds: np.ndarray) -> ScaleMixture:
        """Return a prior with half of its weight on effects of about zero."""
        n_wide = len(SCALES) - 1
        weights = np.array([0.5, *np.full(n_wide, 0.5 / n_wide)])
        return cls(np.tile(weights, (len(kinds), 1)), kinds, np.array(SCALES))

    def shrunk(
        self, estimates: np.ndarray, variances: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return posterior means and variances, and the components' mean weights per effect.

        ``estimates`` and ``variances`` are those of a normal likelihood, ``(n_effects, n_features)``.
        The weights are ``(n_effects, n_components)``, sums over features.
        """
        squares = self.scales**2
        total = variances[..., None] + squares
        # a weight may underflow if all estimates are precise
        weights = np.maximum(self.scale_weights, np.finfo(float).tiny)
        log_share = np.log(weights)[:, None] - 0.5 * (
            np.log(total) + estimates[..., None] ** 2 / total
        )
        log_share -= log_share.max(axis=-1, keepdims=True)
        share = np.exp(log_share)
        share /= share.sum(axis=-1, keepdims=True)
        factor = squares / total
        mean = (share * factor).sum(axis=-1) * estimates
        second = factor * variances[..., None] + (factor * estimates[..., None]) ** 2
        variance = np.maximum((share * second).sum(axis=-1) - mean**2, SMALLEST_VARIANCE)
        return mean, variance, share.sum(axis=1)

    def updated(self, sums: np.ndarray) -> ScaleMixture:
        """Return the prior with weights from the components' sums over features, see :meth:`shrunk`."""
        weights = np.empty_like(sums)
        for kind in np.unique(self.kinds):
            of_kind = self.kinds == kind
            shared = sums[of_kind].sum(axis=0) / sums[of_kind].sum()
            counted = sums[of_kind] + STRENGTH * shared
            weights[of_kind] = counted / counted.sum(axis=1, keepdims=True)
        return self._replace(scale_weights=weights)

    def shared(self, kind: int) -> np.ndarray:
        """Return the mean weights of a kind of effects, ``(n_components,)``: those of a new effect."""
        mean: np.ndarray = self.scale_weights[self.kinds == kind].mean(axis=0)
        return mean
