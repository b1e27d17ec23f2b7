"""Interface of a cause, and the evidence for it."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from betavi.diagnostics.spectrum import SignalSpectrum


class Calls(NamedTuple):
    """Python code that repairs a model, quoted in the texts of remedies.

    Parameters
    ----------
    repair
        Code that trains this model again.
    model
        Code that creates a model. Other arguments replace ``{}``.
    plain_counts
        Code that creates a model whose likelihood has counting noise only.

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
    """Evidence for causes of collapse, measured by ``diagnose``. Values in nats are per cell.

    Parameters
    ----------
    n_latent
        Number of latent dimensions.
    n_used
        Number of used dimensions. Unclear dimensions are included.
    beta
        β at the end of training. NaN if training kept the rate constant.
    requested_beta
        β that the user requested.
    held_rate
        Constant rate (KL to the prior) of training with ``capacity``, nats. NaN without it.
    spectrum
        Directions in which cells differ, after correction for the decoder's covariates.
    spectrum_without_covariates
        Directions in which cells differ, without this correction.
    explained
        How much lower the reconstruction loss is with the cell's own z than with a z from the
        prior.
    covariates
        How much lower the reconstruction loss is with the cell's own covariates than with those of
        another cell.
    gap
        How much lower the loss is if the posterior of each cell is optimised separately, nats.
    gap_error
        Standard error of ``gap``.
    excess_noise
        Variance of the model's likelihood divided by the variance that the directions leave
        unexplained. Median over genes.
    calls
        Python code that repairs the model.
    n_unclear
        Number of unclear dimensions.
    of_images
        True if the features are pixels.
    likelihood_reads_image
        True if the likelihood predicts parts of an image from other parts.

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
    of_images: bool = False
    likelihood_reads_image: bool = False

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
    name
        Key of ``CAUSES``.
    evidence
        Text with the measured numbers.
    remedy
        Text with the code that repairs the model.

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
        Function of :class:`Evidence`. The function returns the text of the evidence and the text of
        the remedy, or None if the evidence does not support the cause.
    priority
        Position in the report, lowest first.
    explains
        Names of the causes that the report leaves out if this cause is supported.
    explains_last_resorts
        True if the report also leaves out all last resorts.
    is_last_resort
        True if this cause is only reported without a better explanation.
    independent_if
        Function of :class:`Evidence`. If the function returns True, the report always keeps this
        cause.
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
