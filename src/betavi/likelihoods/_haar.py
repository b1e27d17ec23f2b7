"""Orthonormal pyramid of images: coarse images, and the details that a coarse image lacks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from torch import Tensor

COARSEST = 4
"""Smallest side of the coarsest image."""

N_DIRECTIONS = 3
"""Kinds of details: horizontal, vertical and diagonal differences."""


def n_halvings(height: int, width: int) -> int:
    """Return how often both sides are halved, down to sides of at least :data:`COARSEST`."""
    number = 0
    while not height % 2 and not width % 2 and min(height, width) >= 2 * COARSEST:
        height, width, number = height // 2, width // 2, number + 1
    return number


def halved(images: Tensor) -> tuple[Tensor, Tensor]:
    """Return the coarse image and its details, for images ``(..., n_channels, height, width)``.

    Both have half the sides. There are three details for each channel. The map is a rotation.

    Reference: Haar (1910), Zur Theorie der orthogonalen Funktionensysteme.
    """
    upper, lower = images[..., ::2, :], images[..., 1::2, :]
    a, b, c, d = upper[..., ::2], upper[..., 1::2], lower[..., ::2], lower[..., 1::2]
    left, right, cross = a - b + c - d, a + b - c - d, a - b - c + d
    return (a + b + c + d) / 2, torch.cat([left, right, cross], dim=-3) / 2


def doubled(coarse: Tensor, details: Tensor) -> Tensor:
    """Return the images of :func:`halved`."""
    left, right, cross = details.chunk(N_DIRECTIONS, dim=-3)
    upper = torch.stack([coarse + left + right + cross, coarse - left + right - cross], dim=-1)
    lower = torch.stack([coarse + left - right - cross, coarse - left - right + cross], dim=-1)
    return torch.stack([upper.flatten(-2), lower.flatten(-2)], dim=-2).flatten(-3, -2) / 2


class HaarBasis(nn.Module):
    """Coefficients of the pyramid, flat in memory, and the band of each.

    The coarsest image is first, then details from coarse to fine. The first band of a channel is its
    coarsest image. Each scale has three further bands.

    Parameters
    ----------
    n_channels, height, width
        Size of an image.

    Examples
    --------
    >>> basis = HaarBasis(1, 8, 8)
    >>> image = torch.randn(5, 64)
    >>> bool(torch.allclose(basis.inverse(basis(image)), image, atol=1e-5)), basis.n_bands
    (True, 4)
    """

    bands: Tensor

    def __init__(self, n_channels: int, height: int, width: int) -> None:
        super().__init__()
        self.shape = n_channels, height, width
        self.n_levels = n_halvings(height, width)
        self.n_bands = 1 + N_DIRECTIONS * self.n_levels
        channels = self.n_bands * torch.arange(n_channels)
        places = (height >> self.n_levels) * (width >> self.n_levels)
        parts = [channels.repeat_interleave(places)]
        for level in range(self.n_levels):
            first = 1 + N_DIRECTIONS * level
            bands = (torch.arange(first, first + N_DIRECTIONS)[:, None] + channels).flatten()
            parts.append(bands.repeat_interleave(places * 4**level))
        self.register_buffer("bands", torch.cat(parts), persistent=False)

    def pyramid(self, images: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Return images from coarse to fine, and the details that each but the last lacks.

        For flat images, ``(..., n_pixels)``. All have the shape ``(..., n_maps, height, width)``. The
        last image is the whole image.
        """
        image = images.unflatten(-1, self.shape)
        coarse = [image]
        details: list[Tensor] = []
        for _ in range(self.n_levels):
            image, detail = halved(image)
            coarse.insert(0, image)
            details.insert(0, detail)
        return coarse, details

    def forward(self, images: Tensor) -> Tensor:
        """Return the coefficients of flat images, both ``(..., n_pixels)``."""
        coarse, details = self.pyramid(images)
        return torch.cat([part.flatten(-3) for part in [coarse[0], *details]], dim=-1)

    def parts(self, coefficients: Tensor) -> list[Tensor]:
        """Return the coarsest image and then details from coarse to fine, of flat coefficients."""
        n_channels, height, width = self.shape
        height, width = height >> self.n_levels, width >> self.n_levels
        parts: list[Tensor] = []
        start, n_maps = 0, n_channels
        for level in range(self.n_levels + 1):
            end = start + n_maps * height * width
            parts.append(coefficients[..., start:end].unflatten(-1, (n_maps, height, width)))
            start, n_maps = end, N_DIRECTIONS * n_channels
            if level:
                height, width = 2 * height, 2 * width
        return parts

    def inverse(self, coefficients: Tensor) -> Tensor:
        """Return the flat images of coefficients, both ``(..., n_pixels)``."""
        image, *details = self.parts(coefficients)
        for part in details:
            image = doubled(image, part)
        return image.flatten(-3)
