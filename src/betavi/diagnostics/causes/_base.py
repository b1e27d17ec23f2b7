"""Interface of a cause, and the evidence for it."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from betavi.diagnostics.spectrum import SignalSpectrum


class Calls(NamedTuple):
    """Python calls that repair a model, for the texts of remedies.

    Parameters
    ----------
    repair, model, plain_counts
        Calls that train this model again, make a model with other arguments in place of ``{}``, and
        make a model with a likelihood that has counting noise only.

    Examples
    --------
    >>> Calls().model.format("beta=2")
    'BetaVI(adata, beta=2)'
    """

    repair: str = "model.rescue()"
    model: str = "BetaVI(adata, {})"
    plain_counts: str = "BetaVI(adata, gene_likelihood='poisson')"


@dataclass(frozen=True)
class Evidence:
    """Evidence for causes of collapse, measured by ``diagnose``. Nats are per cell.

    Parameters
    ----------
    n_latent, n_used, n_unclear
        Number of dimensions, of used dimensions including unclear ones, and of unclear ones.
    beta, requested_beta, held_rate
        β at the end of training, β that the user requested, and rate at which training was held.
        Either ``beta`` or ``held_rate`` is NaN.
    spectrum, spectrum_without_covariates
        Directions in which cells differ, with and without correction for the decoder's covariates.
    explained, covariates
        Nats that a cell's z saves compared with a z from the prior, and nats that its covariates
        save compared with those of another cell.
    gap, gap_error
        Loss at β that separately optimised posteriors save, nats, and its standard error.
    excess_noise
        Ratio of the model's variance to the variance outside the directions, median over genes.
    calls
        Calls that repair the model.

    Examples
    --------
    >>> Evidence(2, 0, 5.0, 5.0, float("nan"), None, None, 0.0, 0.0, 1.0, 0.0, 1.0).used
    '0 of 2 dimensions are used'
    """

    n_latent: int
    n_used: int
    beta: float
    requested_beta: float
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
        """Number of used dimensions, as text."""
        maybe = f" and {self.n_unclear} more may be" if self.n_unclear else ""
        return f"{self.n_used - self.n_unclear} of {self.n_latent} dimensions are used{maybe}"


@dataclass(frozen=True)
class Cause:
    """Cause of unused dimensions in a report.

    Parameters
    ----------
    name, evidence, remedy
        Key of ``CAUSES``, text with the measured numbers, and call that repairs the model.

    Examples
    --------
    >>> print(Cause("lagging_encoder", "The encoder lags.", "model.rescue()."))
    lagging_encoder: The encoder lags. Remedy: model.rescue().
    """

    name: str
    evidence: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.name}: {self.evidence} Remedy: {self.remedy}"


Judgement = tuple[str, str] | None
"""Evidence and remedy as text, or None if the evidence does not support the cause."""

Judge = Callable[[Evidence], Judgement]


@dataclass(frozen=True)
class CauseRule:
    """Rule that recognises a cause, and its relation to other causes.

    Parameters
    ----------
    judge
        Function of :class:`Evidence` that returns evidence and remedy, two strings, or None.
    priority
        Position in the report, lowest first.
    explains, explains_last_resorts
        Names of the causes that this one hides, and whether it hides all last resorts too.
    is_last_resort, independent_if
        Whether other causes may hide this one as a last resort, and condition under which no cause
        hides it.
    is_trainable
        False if no training can repair the model, so that ``rescue`` does not try.

    Examples
    --------
    >>> rule = CauseRule(lambda found: ("β is 0.", "Raise β.") if found.beta == 0 else None)
    >>> rule.priority
    100
    """

    judge: Judge
    priority: float = 100  # after the causes of the package
    explains: Collection[str] = ()
    explains_last_resorts: bool = False
    is_last_resort: bool = False
    independent_if: Callable[[Evidence], bool] = lambda _found: False
    is_trainable: bool = True
