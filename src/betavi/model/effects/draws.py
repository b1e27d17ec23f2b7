"""Draws of expected profiles of conditions, from the posterior of the effects."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from betavi.model.effects.contexts import in_context
from betavi.model.effects.curves import curve_factors
from betavi.model.setup.arguments import check_arguments
from betavi.nn.effects import DEVIATION, INTERACTION, MAIN

if TYPE_CHECKING:
    from collections.abc import Sequence

    from betavi.model.effects.embedding import NewEffects
    from betavi.module.effect_fit import EffectEstimate

N_DRAWS = 400
"""Number of draws of a profile. The 5 % quantile then has an error of about 0.1 standard deviations."""


class ConditionDraws(NamedTuple):
    """Draws of a condition's profile, and of the control's with the same base level.

    ``condition`` and ``control`` are shares, ``(n_draws, n_genes)``; ``mean`` and ``control_mean`` are
    the shares at the posterior mean, ``(n_genes,)``, and the medians of the draws.
    """

    condition: np.ndarray
    control: np.ndarray
    mean: np.ndarray
    control_mean: np.ndarray


class Condition(NamedTuple):
    """A condition to predict.

    ``parts`` are the codes of its perturbations, and ``doses`` their doses. ``context`` is a code.
    ``row`` are the values of the effects, ``(n_effects,)``. ``unmeasured`` are the factors of deviations
    in the context that are drawn from their prior. ``n_new_pairs`` is the number of pairs without a
    column, whose interactions are drawn from their prior. ``new`` are effects of perturbations that were
    not measured.
    """

    parts: Sequence[int] | np.ndarray
    doses: Sequence[float] | np.ndarray | None
    context: int
    row: np.ndarray
    unmeasured: Sequence[float] = ()
    n_new_pairs: int = 0
    new: NewEffects | None = None


def condition_in(
    estimate: EffectEstimate,
    parts: Sequence[int] | np.ndarray,
    doses: Sequence[float] | np.ndarray | None,
    context: int,
) -> Condition:
    """Return a condition with these perturbations, at these doses, in a context."""
    row, unmeasured = in_context(
        estimate, estimate.design.row(parts, doses, context), parts, context
    )
    return Condition(parts, doses, context, row, unmeasured)


def condition_draws(
    estimate: EffectEstimate,
    condition: Condition,
    rng: np.random.Generator,
    noise_share: float = 1.0,
    n_draws: int = N_DRAWS,
) -> ConditionDraws:
    """Return draws of the shares of a condition and of the control.

    ``noise_share`` is 1 for cells of one replicate, and smaller for several.
    """
    row, new = condition.row, condition.new
    posterior, n_base = estimate.posterior, estimate.n_base
    contrasts = np.zeros((2, len(posterior.mean)))
    contrasts[0, :n_base], contrasts[1, n_base:] = estimate.bases[condition.context], row
    means = contrasts @ posterior.mean
    factor = np.linalg.cholesky(posterior.covariance(contrasts) + 1e-12 * np.eye(2))
    noise = rng.normal(size=(n_draws, means.shape[1], 2))
    base, effect = means[..., None] + np.einsum("gij,sgj->igs", factor, noise)
    effect = effect.T
    for kind, sizes in unknown_effects(estimate, condition).items():
        effect += drawn_prior(estimate, kind, sizes, effect.shape, rng)
    if condition.doses is not None:
        factors = curve_factors(estimate, condition.parts, condition.doses, rng, n_draws)
        effect += (factors - 1) * row @ posterior.mean[n_base:]
    mean_effect = means[1]
    if new is not None:
        mean_effect = mean_effect + new.mean
        effect += new.mean + np.sqrt(new.variance) * rng.normal(size=effect.shape)
    if row.any() or new is not None:
        effect += np.sqrt(noise_share * posterior.noise) * rng.normal(size=effect.shape)
    level = estimate.profile + base.T
    mean = shares(estimate.profile + means[0] + mean_effect)
    control_mean = shares(estimate.profile + means[0])
    return ConditionDraws(
        centred(shares(level + effect), mean),
        centred(shares(level), control_mean),
        mean,
        control_mean,
    )


def unknown_effects(estimate: EffectEstimate, condition: Condition) -> dict[int, list[float]]:
    """Return the factors of the effects of a condition that are drawn from their prior, by kind.

    These are effects without training cells.
    """
    effects = slice(estimate.n_base, None)
    absent = ~estimate.posterior.is_estimated[effects]
    found = {}
    for kind in (MAIN, INTERACTION):
        values = condition.row[absent & (estimate.kinds[effects] == kind)]
        found[kind] = values[values != 0].tolist()
    found[INTERACTION] += [1.0] * condition.n_new_pairs
    return found | {DEVIATION: list(condition.unmeasured)}


def centred(draws: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Return draws of shares, multiplied so that their median is the share at the posterior mean.

    Without this, wide posteriors of some genes would lower the shares of all others.
    """
    found: np.ndarray = draws * (mean / np.median(draws, axis=0))
    return found


def check_level(level: Any) -> None:
    """Raise an error unless the level of an interval is a number above 0 and below 1."""
    check_arguments({"level": level})
    if level is None or not 0 < level < 1:
        raise ValueError(f"`level` must be above 0 and below 1, not {level!r}.")


def drawn_prior(
    estimate: EffectEstimate,
    kind: int,
    factors: Sequence[float],
    shape: tuple[int, ...],
    rng: np.random.Generator,
) -> np.ndarray:
    """Return sums of new effects of one kind, drawn from their prior, each times a factor.

    Zero if no effect of this kind was measured.
    """
    total = np.zeros(shape)
    prior = estimate.posterior.prior
    if not (prior.kinds == kind).any():
        return total
    for factor in factors:
        scale = rng.choice(prior.scales, size=shape, p=prior.shared(kind))
        total += factor * scale * rng.normal(size=shape)
    return total


def shares(log_rates: np.ndarray) -> np.ndarray:
    """Return rates that sum to 1 over the last axis."""
    rates = np.exp(log_rates - log_rates.max(axis=-1, keepdims=True))
    total: np.ndarray = rates / rates.sum(axis=-1, keepdims=True)
    return total
