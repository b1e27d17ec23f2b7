"""Orthonormal cosine basis of images, and its bands of spatial frequency."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy import fft
from torch import nn

if TYPE_CHECKING:
    from torch import Tensor

BANDS_PER_OCTAVE = 4
"""Number of bands from one frequency to its double. Chosen with ``python -m benchmarks.images``."""


def frequency_bands(height: int, width: int, per_octave: int = BANDS_PER_OCTAVE) -> np.ndarray:
    """Return the band of each cosine, ``(height, width)``, from coarse to fine.

    Band 0 has the mean of the image. Each other band has the cosines of similar radial frequency.

    Parameters
    ----------
    height, width
        Size of the image.
    per_octave
        Number of bands from one frequency to its double.

    Returns
    -------
    Band of each coefficient, ``(height, width)``, from 0.

    Examples
    --------
    >>> from betavi.likelihoods import frequency_bands
    >>> frequency_bands(3, 3, per_octave=1)
    array([[0, 1, 2],
           [1, 1, 2],
           [2, 2, 2]])
    """
    rows, columns = (np.arange(side) / (2 * side) for side in (height, width))
    frequency = np.hypot(rows[:, None], columns)
    frequency[0, 0] = frequency[frequency > 0].min(initial=1.0) / 2
    # rounding must not separate cosines of the same frequency
    steps = np.floor(per_octave * np.log2(frequency) + 1e-6)
    numbers = np.unique(steps, return_inverse=True)[1]
    return numbers.reshape(height, width)


class CosineBasis(nn.Module):
    """Orthonormal discrete cosine transform of flat images, and the band of each coefficient.

    Cosines have no jump at the borders of an image, unlike periodic waves. Such jumps would add power
    to fine bands.

    Parameters
    ----------
    n_channels, height, width
        Size of an image.

    References
    ----------
    Ahmed et al. (1974), Discrete cosine transform.

    Examples
    --------
    >>> basis = CosineBasis(1, 8, 8)
    >>> image = torch.randn(5, 64)
    >>> coefficients = basis(image)
    >>> bool(torch.allclose(coefficients.square().sum(), image.square().sum(), rtol=1e-4))
    True
    >>> bool(torch.allclose(basis.inverse(coefficients), image, atol=1e-4)), basis.n_bands
    (True, 12)
    """

    bands: Tensor
    rows: Tensor
    columns: Tensor

    def __init__(self, n_channels: int, height: int, width: int) -> None:
        super().__init__()
        self.shape = n_channels, height, width
        numbers = frequency_bands(height, width)
        self.n_bands = int(numbers.max()) + 1
        of_channels = [numbers + channel * self.n_bands for channel in range(n_channels)]
        self._add("bands", np.stack(of_channels).ravel())
        for name, side in (("rows", height), ("columns", width)):
            self._add(name, fft.dct(np.eye(side), axis=0, norm="ortho").astype(np.float32))

    def _add(self, name: str, values: np.ndarray) -> None:
        self.register_buffer(name, torch.as_tensor(values), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Return the coefficients of flat images, both ``(..., n_pixels)``."""
        values = images.unflatten(-1, self.shape)
        return (self.rows @ (values @ self.columns.T)).flatten(-3)

    def inverse(self, coefficients: Tensor) -> Tensor:
        """Return the flat images of coefficients, both ``(..., n_pixels)``."""
        values = coefficients.unflatten(-1, self.shape)
        return (self.rows.T @ (values @ self.columns)).flatten(-3)

    def pixel_variance(self, variance: Tensor) -> Tensor:
        """Return the variance of pixels for independent coefficients, both ``(..., n_pixels)``."""
        values = variance.unflatten(-1, self.shape)
        return (self.rows.square().T @ (values @ self.columns.square())).flatten(-3)
