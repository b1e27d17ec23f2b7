"""What a module is built from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from betavi._tables import check_whole

if TYPE_CHECKING:
    import numpy as np


class CovariateSizes(NamedTuple):
    """How many batches, labels, continuous covariates, and categories of each other covariate.

    Parameters
    ----------
    n_batch, n_labels, n_continuous
        Their numbers; none if 0.
    n_categories
        Number of categories of each, ``(n_categorical,)``.

    Examples
    --------
    >>> from betavi.module import CovariateSizes
    >>> CovariateSizes(n_batch=2, n_categories=(3, 4))
    CovariateSizes(n_batch=2, n_labels=0, n_continuous=0, n_categories=(3, 4))
    """

    n_batch: int = 0
    n_labels: int = 0
    n_continuous: int = 0
    n_categories: tuple[int, ...] = ()


class Modality(NamedTuple):
    """One assay: its width, its likelihood, and the prior of its library size.

    Parameters
    ----------
    n_features
        Number of genes, peaks or proteins.
    likelihood
        A key of :data:`betavi.likelihoods.LIKELIHOODS`.
    library_prior
        Mean and variance of the log library size of each batch, each ``(1, n_batch)``; without it
        the library size is observed.
    weight
        Of its distortion in the loss.
    typical
        For cells that lack the assay: the first arguments of :class:`betavi.nn.TypicalLibrary`.

    Examples
    --------
    >>> from betavi.module import Modality
    >>> adt = Modality(20, "nb_mixture", weight=2.0)
    >>> adt.n_features, adt.library_prior is None
    (20, True)
    """

    n_features: int
    likelihood: str
    library_prior: tuple[np.ndarray, np.ndarray] | None = None
    weight: float = 1.0
    typical: tuple[np.ndarray, np.ndarray, int] | None = None


@dataclass(frozen=True)
class Options:
    """What the model is, as opposed to how its networks are built.

    Parameters
    ----------
    n_latent
        Number of latent dimensions.
    latent_distribution
        A key of :data:`betavi.nn.LATENTS`.
    fusion
        A key of :data:`betavi.nn.FUSIONS`.
    dispersion
        A key of :data:`betavi.likelihoods.DISPERSIONS`.
    given_size
        Whether each cell's size factor comes with the data.
    encode_covariates
        Whether encoders read the covariates; decoders always do.
    log_variational
        Whether encoders read ``log(1 + x)`` instead of ``x``.
    batch_representation
        ``"one-hot"`` or ``"embedding"``.
    batch_embedding_kwargs
        Passed to :class:`scvi.nn.Embedding`.
    beta
        The weight of the rate, or the lowest and the highest of a range: see
        :class:`betavi.nn.Dial`.
    prior
        A key of :data:`betavi.nn.PRIORS`.
    n_components
        Number of components of a prior that is a mixture.
    extra_payload_autotune
        Whether each loss carries z, batch and label of its cells, for :mod:`scvi.autotune`.

    Raises
    ------
    ValueError
        If a size is no whole number of at least 1.

    Examples
    --------
    >>> from betavi.module import Options
    >>> Options(n_latent=5).latent_distribution
    'normal'
    """

    n_latent: int = 10
    latent_distribution: str = "normal"
    fusion: str = "single"
    dispersion: str = "gene"
    given_size: bool = False
    encode_covariates: bool = False
    log_variational: bool = True
    batch_representation: str = "one-hot"
    batch_embedding_kwargs: dict[str, Any] | None = None
    beta: float | tuple[float, float] = 1.0
    prior: str = "standard_normal"
    n_components: int = 50
    extra_payload_autotune: bool = False

    def __post_init__(self) -> None:
        """Refuse what no module can be built from."""
        check_whole("n_latent", self.n_latent)
        check_whole("n_components", self.n_components)
