"""Construction of a module's parts: encoders, decoders, likelihoods, prior and buffers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from scvi import REGISTRY_KEYS
from torch import nn

from betavi._tables import lookup
from betavi.likelihoods import IMAGE_LIKELIHOODS, LIKELIHOODS, DispersionSizes
from betavi.nn import DECODERS, ENCODERS, FUSIONS, LATENTS, PRIORS
from betavi.nn.convolutional_encoder import ChannelScale
from betavi.nn.depth import DepthLimit
from betavi.nn.library import LatentLibrary, TypicalLibrary
from betavi.nn.networks import Encoder
from betavi.nn.prior.pseudo_cells import PseudoCells
from betavi.objective import RateController

if TYPE_CHECKING:
    from collections.abc import Mapping

    from betavi.module.options import Modality
    from betavi.module.vae import MultimodalVAE
    from betavi.nn import Architecture

BATCH_IS_EMBEDDED: dict[str, bool] = {"one-hot": False, "embedding": True}
"""By name: True if networks read a learned vector of the batch instead of its code."""

IMAGE_NETWORKS = "convolutional"
"""Encoder and decoder of images."""

PARTS = (
    "depth_limits", "image_scales", "z_encoders", "l_encoder", "typical_libraries", "decoders",
    "likelihoods",
)  # fmt: skip
"""Names of the dictionaries with one part for each modality that has it."""


def add_parts(
    module: MultimodalVAE, modalities: Mapping[str, Modality], architecture: Architecture
) -> None:
    """Add the parts to a module, in the order in which their weights are drawn."""
    options, sizes = module.options, module.sizes
    if module.embeds_batch:
        embedding_kwargs = options.batch_embedding_kwargs or {}
        module.init_embedding(REGISTRY_KEYS.BATCH_KEY, sizes.n_batch, **embedding_kwargs)
    for kind in PARTS:
        setattr(module, kind, nn.ModuleDict())
    for name, modality in modalities.items():
        add = _add_modality if modality.image is None else _add_images
        add(module, name, modality, architecture)
    module.fusion = lookup(FUSIONS, options.fusion, "fusion")()
    module.latent = lookup(LATENTS, options.latent_distribution, "latent_distribution")()
    if module.latent.is_deterministic and not module.beta_condition.is_fixed:
        raise ValueError(
            "A deterministic autoencoder has no rate for β to weight, so `beta` cannot be a range. "
            "Leave `beta` out, or use latent_distribution='normal'."
        )
    module.prior = lookup(PRIORS, options.prior, "prior")(options.n_latent, options.n_components)
    if module.prior.reads_pseudo_cells:
        widths = {name: modality.n_features for name, modality in modalities.items()}
        module.pseudo_cells = PseudoCells(
            options.n_components, widths, sizes.n_continuous, len(sizes.n_categories)
        )
    # True until the first step. Buffers are saved with the weights
    module.register_buffer("is_fresh", torch.tensor(True))
    # β of the last training step, and the constant rate in nats of training with a capacity
    module.register_buffer("trained_beta", torch.tensor(float("nan")))
    module.register_buffer("held_rate", torch.tensor(float("nan")))
    module.controller = RateController()


def _add_modality(
    module: MultimodalVAE, name: str, modality: Modality, architecture: Architecture
) -> None:
    options, sizes = module.options, module.sizes
    likelihood = lookup(LIKELIHOODS, modality.likelihood, "gene_likelihood")
    n_values, n_categories = _covariate_widths(module)
    encoded, codes = (n_values, n_categories) if options.encode_covariates else (0, [])
    width = modality.n_features + encoded
    beta_condition = None if module.beta_condition.is_fixed else module.beta_condition
    module.depth_limits[name] = DepthLimit()
    module.z_encoders[name] = Encoder(
        width, options.n_latent, codes, architecture, beta_condition=beta_condition
    )
    if (prior := modality.library_prior) is not None:
        module.l_encoder[name] = LatentLibrary(width, codes, architecture, *prior)
    if modality.typical is not None:
        module.typical_libraries[name] = TypicalLibrary(*modality.typical, options.n_latent)
    if (kind := lookup(DECODERS, options.decoder, "decoder")).of_images:
        raise ValueError(
            f"decoder={options.decoder!r} is for images, and images always have this decoder. For other "
            "modalities, choose another decoder, or leave `decoder` out."
        )
    decoder = kind(options.n_latent, n_values, n_categories, architecture, beta_condition)
    module.decoders[name] = decoder
    module.likelihoods[name] = likelihood(
        decoder.n_hidden,
        modality.n_features,
        "softplus" if options.given_size else "softmax",
        options.dispersion,
        DispersionSizes(sizes.n_batch, sizes.n_labels),
        beta_condition,
    )


def _add_images(
    module: MultimodalVAE, name: str, modality: Modality, architecture: Architecture
) -> None:
    options, sizes, image = module.options, module.sizes, modality.image
    assert image is not None
    likelihood = lookup(
        IMAGE_LIKELIHOODS, modality.likelihood, f"The likelihood of images {name!r}"
    )
    n_values, n_categories = _covariate_widths(module)
    encoded, codes = (n_values, n_categories) if options.encode_covariates else (0, [])
    beta_condition = None if module.beta_condition.is_fixed else module.beta_condition
    module.image_scales[name] = ChannelScale(image)
    encoder: Any = ENCODERS[IMAGE_NETWORKS]
    module.z_encoders[name] = encoder(
        encoded, options.n_latent, codes, architecture, image, beta_condition
    )
    if modality.typical is not None:
        module.typical_libraries[name] = TypicalLibrary(*modality.typical, options.n_latent)
    kind: Any = DECODERS[IMAGE_NETWORKS]
    decoder = kind(
        options.n_latent, n_values, n_categories, architecture, beta_condition, image=image
    )
    module.decoders[name] = decoder
    module.likelihoods[name] = likelihood(
        decoder.n_hidden,
        image,
        options.dispersion,
        DispersionSizes(sizes.n_batch, sizes.n_labels),
        beta_condition,
    )


def _covariate_widths(module: MultimodalVAE) -> tuple[int, list[int]]:
    """Return the number of numeric covariate columns, and the category number of each code."""
    if module.embeds_batch:
        batch = module.get_embedding(REGISTRY_KEYS.BATCH_KEY)
        return module.sizes.n_continuous + batch.embedding_dim, list(module.sizes.n_categories)
    return module.sizes.n_continuous, [module.sizes.n_batch, *module.sizes.n_categories]
