"""Module of one modality, with SCVI's argument names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from betavi._tables import close_matches
from betavi.data import COUNTS
from betavi.module.options import CovariateSizes, Modality, Options
from betavi.module.vae import MultimodalVAE
from betavi.nn import Architecture, BetaCondition

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from torch import Tensor

    from betavi.data import ImageFormat
    from betavi.nn.library import LatentLibrary

LAYER_NORM = {"use_batch_norm": "none", "use_layer_norm": "both"}
"""Default normalisation in a model trained on a range of β."""


class BetaVAE(MultimodalVAE):
    """:class:`MultimodalVAE` of one modality, ``"X"``, with SCVI's argument names.

    Parameters
    ----------
    n_input
        Number of genes.
    gene_likelihood
        Key of :data:`~betavi.likelihoods.LIKELIHOODS`.
    n_batch, n_labels, n_continuous_cov
        Numbers of batches, labels and continuous covariates.
    n_cats_per_cov
        Number of categories of each other categorical covariate.
    use_observed_lib_size
        Use the total count of each cell as its library size.
    use_size_factor_key
        Read the size factor of each cell from the data. If both options are False, the library size
        is inferred.
    image
        Only for images: their format. The likelihood is then a key of
        :data:`~betavi.likelihoods.IMAGE_LIKELIHOODS`.
    library_log_means, library_log_vars
        Only for inferred library sizes: mean and variance of the log library size of each batch,
        ``(1, n_batch)``.
    n_hidden, n_layers, dropout_rate, n_latent, latent_distribution, dispersion, **kwargs
        Fields of :class:`~betavi.nn.Architecture` and :class:`~betavi.module.Options`.

    Raises
    ------
    TypeError, ValueError
        If an argument is unknown, a word is not in its table, or an inferred library has no prior.

    References
    ----------
    Lopez et al. (2018), Deep generative modeling for single-cell transcriptomics. Higgins et al.
    (2017), β-VAE: learning basic visual concepts with a constrained variational framework.

    Examples
    --------
    >>> import torch
    >>> from betavi.module import BetaVAE
    >>> module = BetaVAE(n_input=30, n_batch=1)
    >>> codes = torch.zeros(8, 1, dtype=torch.long)
    >>> minibatch = {"X": torch.ones(8, 30), "batch": codes, "labels": codes}
    >>> inferred, generated, losses = module(minibatch)
    >>> inferred["z"].shape, generated["px"]["X"].mean.shape, losses.loss.shape
    (torch.Size([8, 10]), torch.Size([8, 30]), torch.Size([]))
    """

    def __init__(
        self,
        n_input: int,
        n_batch: int = 0,
        n_labels: int = 0,
        n_hidden: int = 128,
        n_latent: int = 10,
        n_layers: int = 1,
        n_continuous_cov: int = 0,
        n_cats_per_cov: Sequence[int] | None = None,
        dropout_rate: float = 0.1,
        dispersion: str = "gene",
        gene_likelihood: str = "zinb",
        latent_distribution: str = "normal",
        use_size_factor_key: bool = False,
        use_observed_lib_size: bool = True,
        library_log_means: np.ndarray | None = None,
        library_log_vars: np.ndarray | None = None,
        image: ImageFormat | None = None,
        **kwargs: Any,
    ) -> None:
        prior = None
        observed = use_size_factor_key or use_observed_lib_size or image is not None
        if not observed:
            if library_log_means is None or library_log_vars is None:
                message = "An inferred library needs `library_log_means` and `library_log_vars`."
                raise ValueError(message)
            prior = (library_log_means, library_log_vars)
        architecture_kwargs, option_kwargs = split_options(kwargs)
        if not BetaCondition(option_kwargs.get("beta", 1.0)).is_fixed:
            # batch normalisation would mix the statistics of different β
            architecture_kwargs = LAYER_NORM | architecture_kwargs
        super().__init__(
            {COUNTS: Modality(n_input, gene_likelihood, prior, image=image)},
            CovariateSizes(n_batch, n_labels, n_continuous_cov, tuple(n_cats_per_cov or ())),
            Architecture(n_hidden, n_layers, dropout_rate, **architecture_kwargs),
            Options(
                n_latent=n_latent,
                latent_distribution=latent_distribution,
                dispersion=dispersion,
                given_size=bool(use_size_factor_key),
                **option_kwargs,
            ),
        )
        self.gene_likelihood = gene_likelihood
        self.latent_distribution = latent_distribution
        self.use_observed_lib_size = observed

    @property
    def library_log_means(self) -> Tensor:
        """Mean of the log library size of each batch, ``(1, n_batch)``."""
        return cast("LatentLibrary", self.l_encoder[COUNTS]).log_means

    @property
    def library_log_vars(self) -> Tensor:
        """Variance of the log library size of each batch, ``(1, n_batch)``."""
        return cast("LatentLibrary", self.l_encoder[COUNTS]).log_vars


def split_options(kwargs: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Split keyword arguments into options of the networks and options of the model."""
    fields = (Architecture.__dataclass_fields__, Options.__dataclass_fields__)
    if unknown := sorted(set(kwargs).difference(*fields)):
        # without the fields that the class sets itself
        known = sorted({"gene_likelihood"}.union(*fields) - {"fusion", "given_size"})
        raise TypeError(f"Unknown argument {unknown[0]!r}. {close_matches(unknown[0], known)}")
    networks, model = ({k: v for k, v in kwargs.items() if k in names} for names in fields)
    return networks, model
