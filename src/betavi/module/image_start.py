"""Start of training at principal components of images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import torch

from betavi.data.start_images import image_components

if TYPE_CHECKING:
    from betavi.data.start_images import ImageStart
    from betavi.module.vae import MultimodalVAE

N_ROUNDS = 3
"""Rounds in which components and noise are found from each other. Not tuned."""


@torch.no_grad()
def start_images_at(module: MultimodalVAE, name: str, start: ImageStart) -> None:
    """Start one modality's encoder, decoder and noise at probabilistic PCA of its images.

    The components are those of the likelihood: with a noise level for each band, they are found in
    images whose bands are divided by these levels.
    """
    scale, encoder, decoder, likelihood = (
        cast("Any", parts[name])
        for parts in (
            module.image_scales, module.z_encoders, module.decoders, module.likelihoods,
        )
    )  # fmt: skip
    scale.start_at(start)
    if module.latent.is_on_simplex:
        # components need dimensions without limits
        return
    changes = start.images.to(likelihood.mean.device) - likelihood.of_pixels(likelihood.mean)
    # the convolutions start at zero, beside the linear paths
    likelihood.unscaled.weight.zero_()
    for _ in range(N_ROUNDS):
        found = image_components(likelihood.whitened(changes), module.options.n_latent)
        effects, centre, residual, readers = (
            likelihood.coloured(found.effects),
            likelihood.coloured(found.centre),
            likelihood.coloured(found.residual),
            likelihood.whitened(found.readers),
        )
        likelihood.start_noise_at(residual)
    decoder.linear.start_at(likelihood.whitened(effects).T, likelihood.whitened(centre))
    in_units = likelihood.of_pixels(likelihood.deviation) * readers
    encoder.start_at(in_units, -(found.readers @ found.centre), found.variance)
