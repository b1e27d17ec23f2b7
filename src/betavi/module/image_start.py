"""Start values of models of images: the mean image, or principal components."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import torch

from betavi.data.start_images import image_components

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from betavi.data.start_images import ImageComponents, ImageStart
    from betavi.module.vae import MultimodalVAE

N_ROUNDS = 3
"""Rounds in which components and noise are found from each other. Not tuned."""

FEWEST_IMAGES = 20
"""Smallest number of images in which components are searched. Not tuned."""

SMALLEST_BETA = 1e-3


@torch.no_grad()
def start_images_at(
    module: MultimodalVAE, starts: Mapping[str, ImageStart], n_components: int = 0
) -> bool:
    """Start networks and noise at the mean image, or at probabilistic PCA of the images.

    The components are those of the likelihood: with a noise level for each band, they are found in
    images whose bands are divided by these levels. Several modalities share the components, so they
    need images of the same cells. Return False if this start is not possible.
    """
    for name, start in starts.items():
        cast("Any", module.image_scales[name]).start_at(start)
    numbers = {len(start.images) for start in starts.values()}
    # components need dimensions without limits
    if module.latent.is_on_simplex or len(numbers) != 1 or min(numbers) < FEWEST_IMAGES:
        return False
    changes = {name: _changes(module, name, start) for name, start in starts.items()}
    for _ in range(N_ROUNDS):
        found = _components(module, changes, n_components)
        coloured = {name: _coloured(module, name, part) for name, part in found.items()}
        for name, part in coloured.items():
            cast("Any", module.likelihoods[name]).start_noise_at(part.residual)
    for name, part in coloured.items():
        _start_networks(module, name, part)
    return True


@torch.no_grad()
def at_components(
    module: MultimodalVAE, starts: Mapping[str, ImageStart]
) -> dict[str, Tensor] | None:
    """Return the state of the module at probabilistic PCA of all modalities, without changing it.

    None if a modality has no images, the latent space has limits, or β is a range.
    """
    has_others = len(starts) < len(module.likelihoods)
    if not starts or has_others or not module.beta_condition.is_fixed:
        return None
    before = {name: value.clone() for name, value in module.state_dict().items()}
    is_possible = start_images_at(module, starts, module.options.n_latent)
    state = {name: value.clone() for name, value in module.state_dict().items()}
    module.load_state_dict(before)
    return state if is_possible else None


def _changes(module: MultimodalVAE, name: str, start: ImageStart) -> Tensor:
    """Return differences of images from the mean of their channels."""
    likelihood = cast("Any", module.likelihoods[name])
    changes: Tensor = start.images.to(likelihood.mean.device) - likelihood.of_pixels(
        likelihood.mean
    )
    return changes


def _components(
    module: MultimodalVAE, changes: Mapping[str, Tensor], n_components: int
) -> dict[str, ImageComponents]:
    """Return the components of each modality, in the units of its output layer."""
    white = [cast("Any", module.likelihoods[name]).whitened(part) for name, part in changes.items()]
    found = image_components(torch.cat(white, dim=1), n_components, _beta(module))
    parts, start = {}, 0
    for name, part in changes.items():
        parts[name] = found.of_pixels(slice(start, start + part.shape[1]))
        start += part.shape[1]
    return parts


def _beta(module: MultimodalVAE) -> float:
    """Return β. A posterior without any variance is not possible."""
    return max(module.beta_condition.default, SMALLEST_BETA)


def _coloured(module: MultimodalVAE, name: str, part: ImageComponents) -> ImageComponents:
    """Return components in the units of the data."""
    likelihood = cast("Any", module.likelihoods[name])
    centre, effects, residual = map(likelihood.coloured, part)
    start = likelihood.mean_at_start(centre)
    return type(part)(start, effects, residual + (centre - start))


def _start_networks(module: MultimodalVAE, name: str, part: ImageComponents) -> None:
    """Start convolutions at zero, and linear paths at components in the units of the data."""
    encoder, decoder, likelihood = (
        cast("Any", parts[name])
        for parts in (module.z_encoders, module.decoders, module.likelihoods)
    )
    white = type(part)(*map(likelihood.whitened, part))
    if module.beta_condition.is_fixed:
        # the dependence on a range of β starts at zero too, and both would not train
        likelihood.unscaled.weight.zero_()
    if not len(white.effects):
        decoder.linear.bias.copy_(white.centre)
        return
    decoder.linear.start_at(white.effects.T, white.centre)
    readers, variance = white.posterior(_beta(module))
    in_units = likelihood.of_pixels(likelihood.deviation) * likelihood.whitened(readers)
    encoder.start_at(in_units, -(readers @ white.centre), variance)
