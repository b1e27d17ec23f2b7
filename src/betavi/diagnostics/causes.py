"""Why dimensions of a latent space are not used: causes, each with its evidence and a remedy."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

    from betavi.diagnostics.spectrum import SignalSpectrum

LARGE_GAP = 0.15
"""Amortisation gap from which on the encoder is to blame, as a share of what z could explain: the
last column that ``python -m benchmarks.collapse`` prints of each model."""

SMALLEST_GAP = 1.0
"""Nats that a gap surely has."""

LEFT_BY_COVARIATES = 0.1
"""Share of the signal below which what covariates leave is little, if it is not even used."""

OVERDISPERSED = 1.5
"""Model variance over the variance that the data's own directions leave, from which on the
likelihood explains as noise what is signal."""


class Calls(NamedTuple):
    """What a user would type to mend a model.

    Parameters
    ----------
    repair
        Trains this model, or another like it, anew.
    model
        Makes another model of the data, with arguments in the place of ``{}``.
    plain_counts
        Makes one whose likelihood takes nothing for noise that is not of counting.

    Examples
    --------
    >>> from betavi.diagnostics import Calls
    >>> Calls().model.format("beta=2")
    'BetaVI(adata, beta=2)'
    """

    repair: str = "model.rescue()"
    model: str = "BetaVI(adata, {})"
    plain_counts: str = "BetaVI(adata, gene_likelihood='poisson')"


@dataclass(frozen=True)
class Evidence:
    """What the causes are judged by.

    Parameters
    ----------
    n_latent, n_used
        Dimensions there are, and those that carry signal or may do so.
    beta, asked_beta
        The weight of the rate that training ended with, NaN if it held the rate at a value instead,
        and the one asked for.
    held_rate
        That value, nats per cell, or NaN.
    spectrum, spectrum_without_covariates
        Directions in which cells differ, beyond what the decoder's covariates say, and at all.
    explained, gap
        Nats per cell that z saves against a z of the prior, and that a better encoder would save,
        of the loss at β, with its standard error, ``gap_error``.
    covariates
        Nats per cell that the decoder's covariates save against those of another cell.
    excess_noise
        Median over genes of the model's variance over the variance that the directions leave.
    calls
        How the model is mended.
    n_unclear
        Of the dimensions used, those of which it is not sure.

    Examples
    --------
    ``diagnose`` gathers it, for the causes to read:

    >>> import numpy as np
    >>> from betavi.diagnostics import Evidence, SignalSpectrum
    >>> spectrum = SignalSpectrum(np.array([9.0, 3.0]), np.ones(20), 1000.0)
    >>> found = Evidence(n_latent=2, n_used=0, beta=5.0, asked_beta=5.0, held_rate=np.nan,
    ...     spectrum=spectrum, spectrum_without_covariates=spectrum, explained=0.0, gap=0.0,
    ...     gap_error=1.0, covariates=0.0, excess_noise=1.0)
    >>> found.spectrum.alive_at(found.beta)
    1
    """

    n_latent: int
    n_used: int
    beta: float
    asked_beta: float
    held_rate: float
    spectrum: SignalSpectrum
    spectrum_without_covariates: SignalSpectrum
    explained: float
    gap: float
    gap_error: float
    covariates: float
    excess_noise: float
    calls: Calls = field(default_factory=Calls)
    n_unclear: int = 0

    @property
    def used(self) -> str:
        """How many dimensions are used, in words."""
        maybe = f" and {self.n_unclear} may be" if self.n_unclear else ""
        return f"{self.n_used - self.n_unclear} of {self.n_latent} dimensions are used{maybe}"


@dataclass(frozen=True)
class Cause:
    """Why dimensions are not used.

    Parameters
    ----------
    name
        A key of :data:`CAUSES`.
    evidence
        The numbers that say so.
    remedy
        What to do, as a call.

    Examples
    --------
    >>> from betavi.diagnostics import Cause
    >>> print(Cause("lagging_encoder", "the encoder lags.", "model.rescue()."))
    lagging_encoder: the encoder lags. Remedy: model.rescue().
    """

    name: str
    evidence: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.name}: {self.evidence} Remedy: {self.remedy}"


def _unfinished_warmup(found: Evidence) -> tuple[str, str] | None:
    if not found.beta < 0.99 * found.asked_beta:
        return None
    return (
        f"training ended at β = {found.beta:.3g} of the {found.asked_beta:.3g} asked for, so what "
        "the dimensions carry is not yet what that β leaves them.",
        "model.train(max_epochs=100, warmup=0.25), and leave n_epochs_kl_warmup out of plan_kwargs.",
    )


def _too_few_counts(found: Evidence) -> tuple[str, str] | None:
    if found.spectrum_without_covariates.n_factors:
        return None
    return (
        f"no direction in which the cells differ is told from noise, at a median of "
        f"{found.spectrum.median_total:.0f} counts per cell: they are too few, or the cells do not "
        "differ.",
        "register more genes or more cells, or drop shallow cells: "
        "sc.pp.filter_cells(adata, min_counts=...).",
    )


def _covariates_explain(found: Evidence) -> tuple[str, str] | None:
    with_them, without = found.spectrum, found.spectrum_without_covariates
    # batches are directions too, and it is no fault that they go, as long as others are left
    share = with_them.signals.sum() / without.signals.sum() if without.n_factors else 1.0
    is_little = share < LEFT_BY_COVARIATES and 2 * found.n_used <= with_them.n_factors
    if 4 * with_them.n_factors >= without.n_factors and not is_little:
        return None
    return (
        f"of {without.n_factors} directions in which the cells differ, {with_them.n_factors} are "
        f"left beyond what the covariates say, with {share:.0%} of the signal; the covariates save "
        f"{found.covariates:.1f} nats per cell.",
        "leave covariates that are biology (labels, clusters) out of setup_anndata(batch_key=, "
        "categorical_covariate_keys=).",
    )


def _capacity_too_low(found: Evidence) -> tuple[str, str] | None:
    n_factors = found.spectrum.n_factors
    if math.isnan(found.held_rate) or found.n_used >= min(found.n_latent, n_factors):
        return None
    return (
        f"training held the rate at {found.held_rate:.3g} nats per cell, with which {found.used}, "
        f"and the data hold {n_factors} directions.",
        f"model.train(capacity={2 * max(found.held_rate, 1):.3g}).",
    )


def _beta_too_high(found: Evidence) -> tuple[str, str] | None:
    spectrum = found.spectrum
    predicted = spectrum.alive_at(found.beta)
    is_short = found.n_used < min(found.n_latent, spectrum.n_factors)
    if not (is_short and spectrum.is_starved(found.beta, found.n_latent)):
        return None
    weakest = 1 + float(spectrum.signals[: found.n_latent][-1])
    beta = spectrum.beta_that_keeps(found.n_latent)
    return (
        f"at β = {found.beta:.3g} a linear theory keeps {predicted} of the {spectrum.n_factors} "
        f"directions that the data hold, and {found.used}: a direction dies "
        f"when its signal and noise fall below β times the noise, and the weakest of those that "
        f"{found.n_latent} dimensions could carry has {weakest:.1f} times the noise.",
        f"{found.calls.repair}, or {found.calls.model.format(f'beta={beta:.2g}')}.",
    )


def _dispersion_absorbs(found: Evidence) -> tuple[str, str] | None:
    # a network uses fewer dimensions than there are directions, because it bends, but not a quarter
    is_short = 4 * found.n_used < found.spectrum.alive_at(found.beta)
    if not (found.excess_noise >= OVERDISPERSED and is_short):
        return None
    return (
        f"the likelihood's variance is {found.excess_noise:.1f} times what the directions in the "
        "data leave unexplained: it takes signal for noise.",
        f"{found.calls.plain_counts}, which takes nothing for noise that is not of counting, or "
        f"{found.calls.repair}.",
    )


def _lagging_encoder(found: Evidence) -> tuple[str, str] | None:
    possible = found.explained + found.gap
    surely = found.gap - 3 * found.gap_error
    # of a gap that was not measured nothing is sure
    if not (surely >= SMALLEST_GAP and found.gap >= LARGE_GAP * possible):
        return None
    share = f"{found.gap / possible:.0%}" if found.explained > 0 else "all"
    return (
        f"posteriors refined cell by cell are {found.gap:.1f} nats per cell better, {share} of what "
        "z could explain: the encoder lags behind its decoder.",
        f"{found.calls.repair}. A rescue trains the encoder alone first.",
    )


def _too_many_dimensions(found: Evidence) -> tuple[str, str] | None:
    predicted = found.spectrum.alive_at(found.beta)
    has_to_bend = found.n_latent <= predicted
    if has_to_bend and (found.n_used == found.n_latent or _has_another_cause(found)):
        return None
    if found.n_used == 0:
        return None
    at_beta = "" if math.isnan(found.beta) else f" at β = {found.beta:.3g}"
    bends = (
        " A dimension of a network bends, and does for several directions: more dimensions would be "
        "to spare, too."
    ) * (found.n_used < predicted)
    return (
        f"{found.used}, and a linear theory keeps {predicted} "
        f"directions of the data alive{at_beta}.{bends} Dimensions to spare do no harm.",
        f"none needed; {found.calls.model.format(f'n_latent={found.n_used}')} has none to spare.",
    )


def _decoder_ignores_z(found: Evidence) -> tuple[str, str] | None:
    predicted = found.spectrum.alive_at(found.beta)
    if found.n_used or not predicted or _has_another_cause(found):
        return None
    return (
        f"no dimension is used, z explains {found.explained:.1f} nats per cell, and a linear theory "
        f"keeps {predicted} directions of the data alive: the decoder has learned to do without z.",
        f"{found.calls.repair}.",
    )


def _has_another_cause(found: Evidence) -> bool:
    return any(judge(found) for name, judge in CAUSES.items() if name not in LAST)


LAST = ("decoder_ignores_z", "too_many_dimensions")
"""Causes that are believed where there is no other."""

CAUSES: dict[str, Callable[[Evidence], tuple[str, str] | None]] = {
    "unfinished_warmup": _unfinished_warmup,
    "too_few_counts": _too_few_counts,
    "covariates_explain": _covariates_explain,
    "capacity_too_low": _capacity_too_low,
    "beta_too_high": _beta_too_high,
    "lagging_encoder": _lagging_encoder,
    "dispersion_absorbs": _dispersion_absorbs,
    "decoder_ignores_z": _decoder_ignores_z,
    "too_many_dimensions": _too_many_dimensions,
}
"""Causes by name, in the order in which they are believed: each returns its evidence and a remedy."""


def causes_of(found: Evidence) -> list[Cause]:
    """Return every cause that the evidence speaks for.

    Parameters
    ----------
    found
        What ``diagnose`` gathered.

    Returns
    -------
    Causes, the likeliest first; none if the evidence speaks for none.

    Examples
    --------
    >>> import numpy as np
    >>> from betavi.diagnostics import Evidence, SignalSpectrum, causes_of
    >>> spectrum = SignalSpectrum(np.array([9.0, 3.0]), np.ones(20), 1000.0)
    >>> found = Evidence(n_latent=2, n_used=0, beta=20.0, asked_beta=20.0, held_rate=np.nan,
    ...     spectrum=spectrum, spectrum_without_covariates=spectrum, explained=0.0, gap=0.0,
    ...     gap_error=1.0, covariates=0.0, excess_noise=1.0)
    >>> [cause.name for cause in causes_of(found)]
    ['beta_too_high']
    """
    said = {name: judge(found) for name, judge in CAUSES.items()}
    return [Cause(name, *words) for name, words in said.items() if words is not None]
