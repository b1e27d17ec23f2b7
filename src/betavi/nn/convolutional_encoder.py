"""Encoder of images, and their standardisation."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.distributions import Normal

from betavi.nn.linear_path import LinearPath
from betavi.nn.networks import Encoder

if TYPE_CHECKING:
    from collections.abc import Sequence

    from betavi.data.images import ImageFormat
    from betavi.data.start_images import ImageStart
    from betavi.nn.beta_condition import BetaCondition
    from betavi.nn.networks import Architecture

FIRST_STRIDE = 4
"""Side of the squares of pixels that the first layer reads. Large squares are fast on a CPU."""

COARSEST = 4
"""Smallest side of the maps of the last convolution."""

N_MAPS = 32, 64
"""Numbers of maps at a quarter of the image's side, and at coarser grids. Not tuned."""


def n_halvings(image: ImageFormat) -> int:
    """Return how often convolutions halve the maps after the first layer."""
    side, number = min(image.height, image.width) // FIRST_STRIDE, 0
    while side >= 2 * COARSEST and not side % 2:
        side, number = side // 2, number + 1
    return number


class ChannelScale(nn.Module):
    """Standardisation of images: each channel of the training images has mean 0 and variance 1."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, image: ImageFormat) -> None:
        super().__init__()
        self.n_channels = image.n_channels
        self.register_buffer("mean", torch.zeros(image.n_channels, 1))
        self.register_buffer("deviation", torch.ones(image.n_channels, 1))

    def start_at(self, start: ImageStart) -> None:
        """Set mean and standard deviation of the channels."""
        self.mean.copy_(start.mean[:, None])
        self.deviation.copy_(start.deviation[:, None])

    def forward(self, images: Tensor) -> Tensor:
        """Return standardised images, flat as the input, ``(..., n_pixels)``."""
        channels = images.unflatten(-1, (self.n_channels, -1))
        return ((channels - self.mean) / self.deviation).flatten(-2)


class ConvolutionalEncoder(nn.Module):
    """Expert of an image: convolutions, and then an :class:`~betavi.nn.networks.Encoder`.

    A linear path from the pixels is added to the mean. It is zero, except in a model that is kept at
    probabilistic PCA.

    Parameters
    ----------
    n_values
        Number of continuous covariates, which follow the pixels.
    n_output, n_categories, architecture, beta_condition
        See :class:`~betavi.nn.networks.Encoder`.
    image
        Format of the images.

    Reference: LeCun et al. (1998), Gradient-based learning applied to document recognition.

    Examples
    --------
    >>> from betavi.data import ImageFormat
    >>> from betavi.nn import ENCODERS, Architecture
    >>> image = ImageFormat(3, 64, 64)
    >>> encoder = ENCODERS["convolutional"](0, 10, [], Architecture(), image)
    >>> encoder(torch.zeros(5, image.n_pixels)).mean.shape
    torch.Size([5, 10])
    """

    def __init__(
        self,
        n_values: int,
        n_output: int,
        n_categories: Sequence[int],
        architecture: Architecture,
        image: ImageFormat,
        beta_condition: BetaCondition | None = None,
    ) -> None:
        super().__init__()
        self.image, n_levels = image, n_halvings(image)
        fine, coarse = N_MAPS
        layers: list[nn.Module] = [
            nn.Conv2d(image.n_channels, fine, FIRST_STRIDE, FIRST_STRIDE), nn.GELU(),
        ]  # fmt: skip
        for level in range(n_levels):
            layers += [nn.Conv2d(coarse if level else fine, coarse, 3, 2, padding=1), nn.GELU()]
        self.convolutions = nn.Sequential(*layers)
        shrinks = FIRST_STRIDE * 2**n_levels
        n_maps = coarse if n_levels else fine
        n_features = n_maps * (image.height // shrinks) * (image.width // shrinks)
        self.encoder = Encoder(
            n_features + n_values,
            n_output,
            n_categories,
            architecture,
            beta_condition=beta_condition,
        )
        self.linear = LinearPath(image.n_pixels, n_output)

    def start_at(self, weight: Tensor, bias: Tensor, variance: Tensor) -> None:
        """Start at a linear mean, and at a variance that is the same for all images.

        ``weight``: ``(n_output, n_pixels)``. ``bias`` and ``variance``: ``(n_output,)``.
        """
        self.linear.start_at(weight, bias)
        for layer in (self.encoder.mean, self.encoder.variance):
            layer.weight.zero_()
            layer.bias.zero_()
        if self.encoder.var_activation is torch.exp:
            self.encoder.variance.bias.copy_(variance.log())

    def forward(self, x: Tensor, *categories: Tensor) -> Normal:
        """Return q, ``(n_cells, n_output)``, for ``(n_cells, n_pixels + n_values)`` and codes."""
        n_pixels = self.image.n_pixels
        images = x[..., :n_pixels].reshape(-1, *self.image.shape)
        features = self.convolutions(images).flatten(1).unflatten(0, x.shape[:-1])
        normal: Normal = self.encoder(torch.cat([features, x[..., n_pixels:]], -1), *categories)
        mean = normal.loc + self.linear(x[..., :n_pixels])
        return Normal(mean, normal.scale, validate_args=False)
