"""Sizes, modalities and options of a module."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from betavi._tables import check_fields, check_whole

if TYPE_CHECKING:
    import numpy as np

    from betavi.data import ImageFormat


class CovariateSizes(NamedTuple):
    """Numbers of batches, labels, continuous covariates, and categories of other covariates.

    Parameters
    ----------
    n_batch, n_labels, n_continuous
        Numbers of batches, labels and continuous covariates.
    n_categories
        Number of categories of each other categorical covariate.

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
    """One modality: its width, its likelihood, and the prior of its library size.

    Parameters
    ----------
    n_features
        Number of features.
    likelihood
        Key of :data:`betavi.likelihoods.LIKELIHOODS`.
    library_prior
        Mean and variance of each batch's log library size, ``(1, n_batch)``. None if library sizes
        are observed.
    weight
        Weight of the modality's distortion (negative log-likelihood) in the loss.
    typical
        Only if cells may lack the modality: first arguments of
        :class:`betavi.nn.library.TypicalLibrary`.
    image
        Only for images: their format. Features are then pixels, and the likelihood is a key of
        :data:`betavi.likelihoods.IMAGE_LIKELIHOODS`.

    Examples
    --------
    >>> from betavi.module import Modality
    >>> adt = Modality(20, "nb_mixture", weight=2.0)
    >>> adt.n_features, adt.weight
    (20, 2.0)
    """

    n_features: int
    likelihood: str
    library_prior: tuple[np.ndarray, np.ndarray] | None = None
    weight: float = 1.0
    typical: tuple[np.ndarray, np.ndarray, int] | None = None
    image: ImageFormat | None = None


@dataclass(frozen=True)
class Options:
    """Options of the model, as opposed to options of its networks.

    Parameters
    ----------
    n_latent
        Number of latent dimensions.
    n_components
        Number of components of a mixture prior.
    latent_distribution
        Key of :data:`betavi.nn.LATENTS`.
    fusion
        Key of :data:`betavi.nn.FUSIONS`.
    prior
        Key of :data:`betavi.nn.PRIORS`.
    decoder
        Key of :data:`betavi.nn.DECODERS`.
    dispersion
        Key of :data:`betavi.likelihoods.DISPERSIONS`.
    given_size
        Read each cell's size factor from the data.
    encode_covariates
        Let encoders read the covariates. Decoders always read them.
    log_variational
        Let encoders read ``log(1 + x)`` instead of ``x``.
    batch_representation
        ``"one-hot"`` or ``"embedding"``.
    batch_embedding_kwargs
        Arguments of :class:`scvi.nn.Embedding`.
    beta
        Weight of the rate (KL divergence from the prior), or range of weights, as in
        :class:`betavi.nn.BetaCondition`.
    extra_payload_autotune
        Add the cells' z, batch and label to each loss, for :mod:`scvi.autotune`.

    Raises
    ------
    ValueError
        If a size is not a whole number of at least 1.

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
    decoder: str = "plain"
    extra_payload_autotune: bool = False

    def __post_init__(self) -> None:
        check_fields(self)
        check_whole("n_latent", self.n_latent)
        check_whole("n_components", self.n_components)
