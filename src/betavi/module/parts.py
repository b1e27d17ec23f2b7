"""What a module is made of: encoders, fusion, prior, decoders and likelihoods."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, cast

import torch
from scvi import REGISTRY_KEYS
from scvi.module.base import BaseMinifiedModeModuleClass, EmbeddingModuleMixin
from torch import Tensor, nn

from betavi._tables import lookup
from betavi.likelihoods import LIKELIHOODS, DispersionSizes
from betavi.nn import (
    FUSIONS,
    LATENTS,
    PRIORS,
    ROUNDING,
    Decoder,
    Dial,
    Encoder,
    LatentLibrary,
    PseudoCells,
    TypicalLibrary,
)
from betavi.objective import RateController

if TYPE_CHECKING:
    from collections.abc import Mapping

    from betavi.likelihoods import Likelihood, Start
    from betavi.module.options import CovariateSizes, Modality, Options
    from betavi.nn import Architecture

BATCH_IS_EMBEDDED: dict[str, bool] = {"one-hot": False, "embedding": True}
"""Whether networks read a vector of the batch instead of its code, by the user's word."""


class Parts(EmbeddingModuleMixin, BaseMinifiedModeModuleClass):
    """The parts of a :class:`~betavi.module.MultimodalVAE`, and the β that they were trained at."""

    is_fresh: Tensor
    trained_beta: Tensor
    held_rate: Tensor

    def __init__(
        self,
        modalities: Mapping[str, Modality],
        sizes: CovariateSizes,
        architecture: Architecture,
        options: Options,
    ) -> None:
        super().__init__()
        self.options = options
        self.sizes = sizes
        self.dial = Dial(options.beta)
        word = options.batch_representation
        self.embeds_batch = lookup(BATCH_IS_EMBEDDED, word, "batch_representation")
        if self.embeds_batch:
            embedding_kwargs = options.batch_embedding_kwargs or {}
            self.init_embedding(REGISTRY_KEYS.BATCH_KEY, sizes.n_batch, **embedding_kwargs)
        self.z_encoders = nn.ModuleDict()
        self.l_encoder = nn.ModuleDict()
        self.typical_libraries = nn.ModuleDict()
        self.decoders = nn.ModuleDict()
        self.likelihoods = nn.ModuleDict()
        self.weights = {name: modality.weight for name, modality in modalities.items()}
        for name, modality in modalities.items():
            self._add(name, modality, architecture)
        self.fusion = lookup(FUSIONS, options.fusion, "fusion")()
        self.latent = lookup(LATENTS, options.latent_distribution, "latent_distribution")()
        if self.latent.is_deterministic and not self.dial.is_fixed:
            raise ValueError(
                "A deterministic autoencoder has no rate for β to weigh, and none of a range: leave "
                "beta out, or choose latent_distribution='normal'."
            )
        self.prior = lookup(PRIORS, options.prior, "prior")(options.n_latent, options.n_components)
        if self.prior.reads_pseudo_cells:
            widths = {name: modality.n_features for name, modality in modalities.items()}
            self.pseudo_cells = PseudoCells(
                options.n_components, widths, sizes.n_continuous, len(sizes.n_categories)
            )
        # whether the weights are as drawn; a buffer, so that saved weights know that they are not
        self.register_buffer("is_fresh", torch.tensor(True))
        # the β of the last training step, and what steered it
        self.register_buffer("trained_beta", torch.tensor(float("nan")))
        # nats at which the last training held the rate, if it did
        self.register_buffer("held_rate", torch.tensor(float("nan")))
        self.controller = RateController()

    @property
    def settled_beta(self) -> float:
        """The β that is answered at if none is asked for.

        Of a model of one β, what training ended with, which a schedule or a controller may have made
        another than the constructor's; of a model of many, 1 or the end of the range closest to it.
        """
        trained = self.trained_beta.item()
        if not self.dial.is_fixed or math.isnan(trained):
            return self.dial.beta
        # of single precision, whose digits beyond the sixth mean nothing
        return float(f"{trained:.6g}")

    def check_beta(self, beta: float) -> None:
        """Refuse a β that the module was not trained at.

        Raises
        ------
        ValueError
            If β is outside the range, or is not the only one.
        """
        if not self.dial.is_fixed:
            self.dial.check(beta)
        elif not math.isclose(beta, self.settled_beta, rel_tol=ROUNDING):
            raise ValueError(
                f"This model is of one β, {self.settled_beta:g}, and answers at no other. Train "
                "every β in a range at once with BetaVI(adata, beta=(0.1, 10))."
            )

    def _add(self, name: str, modality: Modality, architecture: Architecture) -> None:
        options, sizes = self.options, self.sizes
        likelihood = lookup(LIKELIHOODS, modality.likelihood, "gene_likelihood")
        n_values, n_categories = self._covariate_widths()
        encoded = (n_values, n_categories) if options.encode_covariates else (0, [])
        width = modality.n_features + encoded[0]
        dial = None if self.dial.is_fixed else self.dial
        self.z_encoders[name] = Encoder(
            width, options.n_latent, encoded[1], architecture, dial=dial
        )
        if modality.library_prior is not None:
            prior = modality.library_prior
            self.l_encoder[name] = LatentLibrary(width, encoded[1], architecture, *prior)
        if modality.typical is not None:
            self.typical_libraries[name] = TypicalLibrary(*modality.typical, options.n_latent)
        self.decoders[name] = Decoder(options.n_latent, n_values, n_categories, architecture, dial)
        self.likelihoods[name] = likelihood(
            architecture.n_hidden,
            modality.n_features,
            "softplus" if options.given_size else "softmax",
            options.dispersion,
            DispersionSizes(sizes.n_batch, sizes.n_labels),
            dial,
        )

    def _covariate_widths(self) -> tuple[int, list[int]]:
        """Return how many values, and how many categories of each code, a network reads."""
        if self.embeds_batch:
            batch = self.get_embedding(REGISTRY_KEYS.BATCH_KEY)
            return self.sizes.n_continuous + batch.embedding_dim, list(self.sizes.n_categories)
        return self.sizes.n_continuous, [self.sizes.n_batch, *self.sizes.n_categories]

    def start_at(self, starts: Mapping[str, Start]) -> None:
        """Let the decoder of each modality start at the moments of its features."""
        for name, start in starts.items():
            cast("Likelihood", self.likelihoods[name]).start_at(start)
        self.is_fresh.fill_(False)
