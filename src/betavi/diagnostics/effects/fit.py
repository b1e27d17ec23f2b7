"""Posterior of effects on log rates, by expectation propagation on a Poisson regression."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from betavi.diagnostics.effects.groups import log_shares
from betavi.diagnostics.effects.noise import no_noise, replicate_noise
from betavi.diagnostics.effects.normal_equations import cavity, solve, sums_by
from betavi.diagnostics.effects.posterior import EffectPosterior
from betavi.diagnostics.effects.scale_mixture import ScaleMixture

BASE_PRECISION, FIRST_PRECISION = 0.1, 10.0
"""Prior precision of the base, which is hardly shrunk, and that of effects in the first step.

Not tuned.
"""

MOST_STEPS, DAMPING = 60, 0.5
"""Largest number of steps, and share of the new prior in each of them. Not tuned."""

TOLERANCE = 2e-4
"""Root mean square change of the effects, in natural log units, that ends the steps. Not tuned."""

LONGEST_STEP = 3.0
"""Largest change of a log rate in a step of Newton's method, which would else overshoot. Not tuned."""

FIRST_NOISE = 5
"""Number of steps before the noise between replicates is estimated. Not tuned."""

PRECISIONS = (1e-4, 1e7)
"""Range of the precision of an approximated prior, so that matrices can be inverted. Not tuned."""


def fit_effects(
    counts: np.ndarray,
    design: np.ndarray,
    kinds: np.ndarray,
    inflation: np.ndarray,
    log_offset: np.ndarray | None = None,
) -> EffectPosterior:
    """Estimate effects on log rates with shrinkage.

    The counts of a group are Poisson draws. Their log rate is a constant of the group plus
    ``log_offset + design @ effects``, and the rates of a group sum to its total count. The variance of
    a count is its mean times ``inflation``. If groups have the same effects, they are replicates, and
    noise of their log rates is added. The prior of each effect is a :class:`ScaleMixture`, with
    weights that are learned.

    Parameters
    ----------
    counts
        Sums of counts, ``(n_groups, n_features)``.
    design
        Values that multiply base levels and effects, ``(n_groups, n_columns)``.
    kinds
        Kind of each column: -1 for a base level, which is not shrunk, else the kind of its prior,
        ``(n_columns,)``.
    inflation
        Variance of counts over their mean, ``(n_features,)``.
    log_offset
        Known part of the log rate, ``(n_groups, n_features)``. By default, the log share of each
        feature in all counts.

    Returns
    -------
    Posterior of base levels and effects.

    Raises
    ------
    FloatingPointError
        If the posterior is not finite.

    References
    ----------
    Minka (2001), Expectation propagation for approximate Bayesian inference. Stephens (2017), False
    discovery rates: a new deal. McCullagh & Nelder (1989), Generalized linear models.

    Examples
    --------
    >>> counts = np.array([[500.0, 500, 1000], [520, 480, 1000], [1500, 500, 1000]])
    >>> design = np.array([[1.0, 0, 0], [1, 1, 0], [1, 0, 1]])
    >>> found = fit_effects(counts, design, np.array([-1, 0, 0]), np.ones(3))
    >>> found.mean[1:, 0].round(1).tolist()
    [0.0, 1.1]
    """
    if log_offset is None:
        log_offset = log_shares(counts)[None]
    active = design.any(axis=0)
    found = _iterate(counts, design[:, active], kinds[active], inflation, log_offset)
    if not np.isfinite(found.mean).all():
        raise FloatingPointError("The effects are not finite. Check the counts for extreme values.")
    n_columns = len(kinds)

    def full(of_active: np.ndarray) -> np.ndarray:
        of_all = np.zeros((n_columns, of_active.shape[1]))
        of_all[active] = of_active
        return of_all

    return found._replace(
        mean=full(found.mean),
        rows=full(found.rows.T).T,
        precision=full(found.precision),
        shift=full(found.shift),
    )


class _Regression(NamedTuple):
    """Counts and design of a Poisson regression, and the different rows of the design.

    ``row_of`` are the codes of the groups' rows, ``(n_groups,)``.
    """

    counts: np.ndarray
    design: np.ndarray
    inflation: np.ndarray
    log_offset: np.ndarray
    rows: np.ndarray
    row_of: np.ndarray

    def residuals(self, mean: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return expected counts, and relative residuals, both ``(n_groups, n_features)``."""
        rate = _rates(self.counts, self.log_offset + self.design @ mean)
        return rate, self.counts / rate - 1

    def step(
        self,
        mean: np.ndarray,
        information: np.ndarray,
        residual: np.ndarray,
        precision: np.ndarray,
        shift: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return means, variances and the rows' weights after a step of Newton's method."""
        weights = sums_by(information, self.row_of, len(self.rows))
        gradient = sums_by(information * residual, self.row_of, len(self.rows))
        score = weights * (self.rows @ mean) + gradient
        solved, variance = solve(self.rows, weights, precision, self.rows.T @ score + shift)
        change = np.abs(self.rows @ (solved - mean)).max(axis=0)
        step = np.minimum(1, LONGEST_STEP / np.maximum(change, np.finfo(float).tiny))
        return mean + step * (solved - mean), variance, weights


def _iterate(
    counts: np.ndarray,
    design: np.ndarray,
    kinds: np.ndarray,
    inflation: np.ndarray,
    log_offset: np.ndarray,
) -> EffectPosterior:
    """Return the posterior for columns that can be estimated. See :func:`fit_effects`."""
    rows, row_of = np.unique(design, axis=0, return_inverse=True)
    data = _Regression(counts, design, inflation, log_offset, rows, row_of.ravel())
    shrunk, prior = np.flatnonzero(kinds >= 0), ScaleMixture.start(kinds[kinds >= 0])
    member = np.unique(design[:, shrunk], axis=0, return_inverse=True)[1].ravel()
    mean = solved = np.zeros((design.shape[1], counts.shape[1]))
    precision, shift = np.full_like(mean, BASE_PRECISION), np.zeros_like(mean)
    precision[shrunk] = FIRST_PRECISION
    variance, noise = np.ones_like(mean), no_noise(counts.shape[1])
    for step in range(MOST_STEPS):
        if step:
            # not after the last step: mean and prior belong together
            prior = _update_prior(prior, solved, variance, precision, shift, shrunk)
        rate, residual = data.residuals(mean)
        if step >= FIRST_NOISE:
            # base levels besides the constant take degrees of freedom
            noise = replicate_noise(counts, rate, inflation, member, int((kinds < 0).sum()) - 1)
        information = rate / (inflation + noise.variance * rate)
        solved, variance, weights = data.step(mean, information, residual, precision, shift)
        solved[shrunk] -= _common_change(solved[shrunk], precision[shrunk], shift[shrunk], step)
        change = np.sqrt(np.square(solved - mean)[shrunk].sum() / max(solved[shrunk].size, 1))
        mean = solved if step else 0.5 * solved
        if change < TOLERANCE and step > FIRST_NOISE:
            break
    return EffectPosterior(mean, rows, weights, precision, shift, *noise, prior)


def _rates(counts: np.ndarray, log_rate: np.ndarray) -> np.ndarray:
    """Return expected counts that sum to the total count of each group."""
    rate = np.exp(log_rate - log_rate.max(axis=1, keepdims=True))
    scaled: np.ndarray = rate * (counts.sum(axis=1) / rate.sum(axis=1))[:, None]
    return np.maximum(scaled, np.finfo(float).tiny)


def _common_change(
    mean: np.ndarray, precision: np.ndarray, shift: np.ndarray, step: int
) -> np.ndarray:
    """Return the change of all features that the prior takes back, ``(n_effects, 1)``.

    A change that is common to all features is one of the group's constant. The counts do not contain
    this change, and steps for single features would remove it very slowly.
    """
    if not step:
        # most effects are small, but the prior has not learned this yet
        median: np.ndarray = np.median(mean, axis=1, keepdims=True)
        return median
    excess = (precision * mean - shift).sum(axis=1, keepdims=True)
    common: np.ndarray = excess / precision.sum(axis=1, keepdims=True)
    return common


def _update_prior(
    prior: ScaleMixture,
    mean: np.ndarray,
    variance: np.ndarray,
    precision: np.ndarray,
    shift: np.ndarray,
    shrunk: np.ndarray,
) -> ScaleMixture:
    """Update the approximation of the prior, in place, and return the prior with new weights."""
    estimate, spread = cavity(mean[shrunk], variance[shrunk], precision[shrunk], shift[shrunk])
    target, target_variance, sums = prior.shrunk(estimate, spread)
    new = np.clip(1 / target_variance - 1 / spread, *PRECISIONS)
    new_shift = target * (1 / spread + new) - estimate / spread
    precision[shrunk] += DAMPING * (new - precision[shrunk])
    shift[shrunk] += DAMPING * (new_shift - shift[shrunk])
    return prior.updated(sums)
