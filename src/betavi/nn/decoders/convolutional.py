"""Decoder of images."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn

from betavi.nn.convolutional_encoder import FIRST_STRIDE, N_MAPS, n_halvings
from betavi.nn.decoders._base import Decoder
from betavi.nn.decoders.plain import PlainDecoder
from betavi.nn.linear_path import LinearPath

if TYPE_CHECKING:
    from collections.abc import Sequence

    from betavi.data.images import ImageFormat
    from betavi.nn.beta_condition import BetaCondition
    from betavi.nn.networks import Architecture


class ConvolutionalDecoder(Decoder):
    """A :class:`PlainDecoder`, and then convolutions up to a quarter of the image's side.

    The last hidden layer has maps of this size, flat in memory. The output layer of the likelihood
    predicts 4 by 4 pixels from each of their positions. After the maps follows an image, the output of
    a linear path from z. The output layer adds it to its prediction.

    Reference: Shi et al. (2016), Real-time single image super-resolution with sub-pixel convolution.

    Examples
    --------
    >>> import torch
    >>> from betavi.data import ImageFormat
    >>> from betavi.nn import DECODERS, Architecture
    >>> image = ImageFormat(3, 64, 64)
    >>> decoder = DECODERS["convolutional"](10, 0, [], Architecture(), image=image)
    >>> decoder(torch.zeros(5, 10)).shape
    torch.Size([5, 20480])
    """

    of_images: ClassVar[bool] = True

    def __init__(
        self,
        n_latent: int,
        n_values: int,
        n_categories: Sequence[int],
        architecture: Architecture,
        beta_condition: BetaCondition | None = None,
        *,
        image: ImageFormat,
    ) -> None:
        super().__init__(n_latent, n_values, n_categories, architecture, beta_condition)
        n_levels = n_halvings(image)
        fine, coarse = N_MAPS
        grid = image.height // FIRST_STRIDE, image.width // FIRST_STRIDE
        first = grid[0] >> n_levels, grid[1] >> n_levels
        n_maps = coarse if n_levels else fine
        self.n_hidden = fine * grid[0] * grid[1] + image.n_pixels
        self.linear = LinearPath(n_latent, image.n_pixels)
        self.plain = PlainDecoder(n_latent, n_values, n_categories, architecture, beta_condition)
        layers: list[nn.Module] = [
            nn.Linear(self.plain.n_hidden, n_maps * first[0] * first[1]),
            nn.Unflatten(1, (n_maps, *first)), nn.GELU(),
        ]  # fmt: skip
        for level in range(n_levels):
            n_out = fine if level == n_levels - 1 else coarse
            layers += [nn.Conv2d(coarse, 4 * n_out, 3, padding=1), nn.PixelShuffle(2), nn.GELU()]
        self.upsampling = nn.Sequential(*layers, nn.Flatten(1))

    def forward(self, z: Tensor, *categories: Tensor) -> Tensor:
        """Return the last hidden layer, ``(..., n_cells, n_hidden)``, for ``z`` with covariates."""
        h: Tensor = self.plain(z, *categories)
        maps: Tensor = self.upsampling(h.reshape(-1, h.shape[-1]))
        linear = self.linear(z[..., : self.n_latent])
        return torch.cat([maps.reshape(*h.shape[:-1], -1), linear], dim=-1)
