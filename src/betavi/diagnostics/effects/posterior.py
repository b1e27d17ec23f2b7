"""Posterior of effects on log rates, and the contrasts that are read from it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from betavi.diagnostics.effects.normal_equations import blocks_of, cavity, hessian_of, solve

if TYPE_CHECKING:
    from betavi.diagnostics.effects.scale_mixture import ScaleMixture

SMALLEST_RATIO = 1e-6
"""Smallest singular value of a design, relative to the largest, that is not rounding. Not tuned."""


class EffectPosterior(NamedTuple):
    """Posterior of base levels and effects, in natural log units, for each feature.

    Parameters
    ----------
    mean
        Means, ``(n_columns, n_features)``. Columns are those of the design: base levels, then effects.
    rows
        Different rows of the design, ``(n_rows, n_columns)``.
    weights
        Information that the counts of these rows hold about their log rate, ``(n_rows, n_features)``.
    precision, shift
        Normal approximation of the prior in natural parameters, ``(n_columns, n_features)``.
    noise
        Variance of log rates between replicates, ``(n_features,)``.
    freedom
        Degrees of freedom of this variance, ``(n_features,)``. Infinity without replicates.
    prior
        Prior of the estimated effects.

    Examples
    --------
    >>> from betavi.diagnostics.effects import fit_effects
    >>> counts, design = np.array([[500.0, 500], [900, 100]]), np.array([[1.0, 0], [1, 1]])
    >>> found = fit_effects(counts, design, np.array([-1, 0]), np.ones(2))
    >>> found.is_estimated.tolist()
    [True, True]
    """

    mean: np.ndarray
    rows: np.ndarray
    weights: np.ndarray
    precision: np.ndarray
    shift: np.ndarray
    noise: np.ndarray
    freedom: np.ndarray
    prior: ScaleMixture

    @property
    def is_estimated(self) -> np.ndarray:
        """Mask of the columns that were estimated, ``(n_columns,)``. The others have their prior."""
        measured: np.ndarray = (self.rows != 0).any(axis=0)
        return measured

    def covariance(self, contrasts: np.ndarray) -> np.ndarray:
        """Return covariances of contrasts, ``(n_features, n_contrasts, n_contrasts)``.

        ``contrasts`` are ``(n_contrasts, n_columns)``. Columns that were not estimated add nothing.
        """
        active, found = self.is_estimated, []
        rows, chosen = self.rows[:, active], contrasts[:, active]
        for some in blocks_of((rows.shape[1], self.mean.shape[1])):
            hessian = hessian_of(rows, self.weights[:, some], self.precision[active][:, some])
            found.append(chosen @ np.linalg.solve(hessian, chosen.T[None]))
        return np.concatenate(found)

    def undetermined(self, contrasts: np.ndarray) -> np.ndarray:
        """Return the part of each contrast that no counts determine, ``(n_contrasts, n_columns)``.

        ``contrasts`` are ``(n_contrasts, n_columns)``. Columns that are not zero in this part cannot be
        separated by counts, only by the prior.
        """
        combined = np.linalg.lstsq(self.rows.T, contrasts.T, rcond=SMALLEST_RATIO)[0]
        rest = contrasts - combined.T @ self.rows
        # dose curves are stored in single precision
        return np.where(np.abs(rest) > 1e-3 * np.abs(contrasts).max(initial=0), rest, 0.0)

    def unshrunk(self, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return estimates and variances of some effects without their own prior.

        Both are ``(n_chosen, n_features)``. All other effects keep their prior. Effects that were not
        estimated have an estimate of 0 and an infinite variance.
        """
        measured = self.is_estimated[columns]
        estimate, variance = np.zeros((2, len(columns), self.mean.shape[1]))
        variance[~measured] = np.inf
        some, active = columns[measured], self.is_estimated
        _, variances = solve(
            self.rows[:, active], self.weights, self.precision[active], self.shift[active]
        )
        marginal = variances[np.searchsorted(np.flatnonzero(active), some)]
        estimate[measured], variance[measured] = cavity(
            self.mean[some], marginal, self.precision[some], self.shift[some]
        )
        return estimate, variance
