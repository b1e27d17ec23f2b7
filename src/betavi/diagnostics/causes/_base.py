"""The evidence that causes are judged by, and the interface of a cause."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from betavi.diagnostics.spectrum import SignalSpectrum


class Calls(NamedTuple):
    """Calls that a user would type to repair a model.

    Parameters
    ----------
    repair, model, plain_counts
        Trains this model anew; makes another model, with arguments in the place of ``{}``; and
        makes one whose likelihood has counting noise only.

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
    """Evidence that the causes are judged by, gathered by ``diagnose``. Nats are per cell.

    Parameters
    ----------
    n_latent, n_used
        Number of dimensions, and of those that carry signal or may do so.
    beta, asked_beta, held_rate
        Weight of the rate at the end of training, and the weight that the user chose; if training
        held the rate at a value instead, that value, and a β of NaN, else NaN.
    spectrum, spectrum_without_covariates
        Directions in which cells differ, beyond the effect of the decoder's covariates, and at all.
    explained, gap, gap_error
        Nats that z saves against a z of the prior, and that a better encoder would save, of the
        loss at β, with its standard error.
    covariates
        Nats that the decoder's covariates save against those of another cell.
    excess_noise
        Median over genes of the model's variance over the variance that the directions leave.
    calls, n_unclear
        Calls that repair the model, and number of used dimensions that may carry no signal.

    Examples
    --------
    >>> Evidence(2, 0, 5.0, 5.0, float("nan"), None, None, 0.0, 0.0, 1.0, 0.0, 1.0).used
    '0 of 2 dimensions are used'
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
        """Number of dimensions used, in words."""
        maybe = f" and {self.n_unclear} may be" if self.n_unclear else ""
        return f"{self.n_used - self.n_unclear} of {self.n_latent} dimensions are used{maybe}"


@dataclass(frozen=True)
class Cause:
    """A cause of unused dimensions, as a diagnosis reports it.

    Parameters
    ----------
    name, evidence, remedy
        A key of ``CAUSES``, a sentence with numbers, and the call that repairs the model.

    Examples
    --------
    >>> print(Cause("lagging_encoder", "the encoder lags.", "model.rescue()."))
    lagging_encoder: the encoder lags. Remedy: model.rescue().
    """

    name: str
    evidence: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.name}: {self.evidence} Remedy: {self.remedy}"


Judgement = tuple[str, str] | None
"""Evidence and remedy of a cause, or None if it does not hold."""

Judge = Callable[[Evidence], Judgement]
"""Function that judges if a cause holds."""

LAST_RESORTS = frozenset({"decoder_ignores_z", "too_many_dimensions"})
"""Causes that are reported where nothing else explains the unused dimensions."""

LAST = 100  # default priority: after the causes of the package


@dataclass(frozen=True)
class CauseRule:
    """Rule that recognises a cause, and its relation to other causes.

    Parameters
    ----------
    judge
        Function from :class:`Evidence` to evidence and remedy, two strings, or to None.
    priority
        Place in the report, lowest first.
    explains, independent_if
        Names of causes that this one hides, and condition under which no other hides this one.

    Examples
    --------
    >>> rule = CauseRule(lambda found: ("it is off.", "turn it on.") if found.beta == 0 else None)
    >>> rule.priority
    100
    """

    judge: Judge
    priority: float = LAST
    explains: Collection[str] = ()
    independent_if: Callable[[Evidence], bool] = lambda _found: False
