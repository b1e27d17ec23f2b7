"""Orthonormal wavelet basis of images with periodic borders."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

if TYPE_CHECKING:
    from torch import Tensor

MOST_LEVELS = 4
"""Largest number of levels. The coarsest band of 64 pixels then has 4 by 4 coefficients."""

N_MOMENTS = 6
"""Vanishing moments of the wavelet, half the length of its filter."""


def daubechies(n_moments: int) -> np.ndarray:
    """Return Daubechies' orthonormal low-pass filter, ``(2 * n_moments,)``.

    The filter is the spectral factor with all zeros inside the unit circle (Daubechies, 1992, Ten
    lectures on wavelets, chapter 6).
    """
    # P(y) = sum_k binomial(n - 1 + k, k) y^k, with y = (2 - z - 1/z) / 4
    numbers = [math.comb(n_moments - 1 + k, k) for k in range(n_moments)]
    roots_y = np.roots(numbers[::-1])
    zeros: list[complex] = []
    for y in roots_y:
        pair = np.roots([1.0, 4 * y - 2, 1.0])
        zeros.append(pair[np.abs(pair).argmin()])
    taps = np.real(np.poly([-1.0] * n_moments + zeros))
    return np.asarray(taps * (math.sqrt(2) / taps.sum()))


def analysis_matrix(length: int, taps: np.ndarray) -> np.ndarray:
    """Return one level of the transform of a periodic signal, ``(length, length)``, orthonormal.

    The first half of the rows are averages, the second half are details.
    """
    low: np.ndarray = np.zeros((length // 2, length))
    high: np.ndarray = np.zeros((length // 2, length))
    signs = (-1.0) ** np.arange(len(taps))
    for row in range(length // 2):
        columns = (2 * row + np.arange(len(taps))) % length
        # a filter longer than the signal wraps around
        np.add.at(low[row], columns, taps)
        np.add.at(high[row], columns, signs * taps[::-1])
    return np.concatenate([low, high])


class WaveletBasis(nn.Module):
    """Orthonormal wavelet transform of flat images, and the band of each coefficient.

    A level splits an image into averages and three bands of details: horizontal, vertical and
    diagonal. The next level splits the averages. Coefficients are stored in place, as is usual.

    Parameters
    ----------
    n_channels, height, width
        Size of an image. The number of levels is the number of times that both sides can be halved,
        at most 4.

    References
    ----------
    Mallat (1989), A theory for multiresolution signal decomposition.

    Examples
    --------
    >>> basis = WaveletBasis(1, 8, 8)
    >>> image = torch.randn(5, 64)
    >>> coefficients = basis(image)
    >>> bool(torch.allclose(coefficients.square().sum(), image.square().sum(), rtol=1e-4))
    True
    >>> bool(torch.allclose(basis.inverse(coefficients), image, atol=1e-4)), basis.n_bands
    (True, 10)
    """

    bands: Tensor
    profiles: Tensor

    def __init__(self, n_channels: int, height: int, width: int) -> None:
        super().__init__()
        self.shape = n_channels, height, width
        self.n_levels = 0
        taps = daubechies(N_MOMENTS)
        while self.n_levels < MOST_LEVELS and not (height % 2 or width % 2):
            for side, length in (("rows", height), ("columns", width)):
                matrix = torch.as_tensor(analysis_matrix(length, taps)).float()
                self.register_buffer(f"{side}_{self.n_levels}", matrix, persistent=False)
            height, width, self.n_levels = height // 2, width // 2, self.n_levels + 1
        self.n_bands = 1 + 3 * self.n_levels
        for name, values in (("bands", self._band_numbers()), ("profiles", self._profiles())):
            self.register_buffer(name, torch.as_tensor(values), persistent=False)
        # one coefficient of each band
        self.first = np.unique(self._band_numbers(), return_index=True)[1][: self.n_bands].tolist()

    def _band_numbers(self) -> np.ndarray:
        """Return the band of each coefficient, ``(n_pixels,)``. Bands of channels differ.

        Bands are numbered from the averages to the finest details.
        """
        n_channels, height, width = self.shape
        numbers: np.ndarray = np.zeros((height, width), dtype=np.int64)
        for level in range(self.n_levels):
            h, w = height >> (level + 1), width >> (level + 1)
            first = 1 + 3 * (self.n_levels - 1 - level)
            numbers[:h, w : 2 * w] = first
            numbers[h : 2 * h, :w] = first + 1
            numbers[h : 2 * h, w : 2 * w] = first + 2
        return np.stack([numbers + c * self.n_bands for c in range(n_channels)]).ravel()

    def _profiles(self) -> np.ndarray:
        """Return the variance of each pixel from a band of variance 1, ``(n_bands, n_pixels)``.

        Pixels of one channel. A band is all products of some rows' and some columns' functions.
        """
        _, height, width = self.shape
        low = np.eye(height), np.eye(width)
        fine: list[np.ndarray] = []
        for level in range(self.n_levels):
            split = [
                np.split(matrix.double().numpy() @ before, 2)
                for matrix, before in zip(self._matrices(level), low, strict=True)
            ]
            (rows_low, rows_high), (columns_low, columns_high) = (
                [np.square(part).sum(axis=0) for part in parts] for parts in split
            )
            pairs = (
                (rows_low, columns_high), (rows_high, columns_low), (rows_high, columns_high),
            )  # fmt: skip
            fine = [np.outer(*pair).ravel() for pair in pairs] + fine
            low = split[0][0], split[1][0]
        coarse = np.outer(*(np.square(part).sum(axis=0) for part in low)).ravel()
        return np.stack([coarse, *fine]).astype(np.float32)

    def _matrices(self, level: int) -> tuple[Tensor, Tensor]:
        return getattr(self, f"rows_{level}"), getattr(self, f"columns_{level}")

    def forward(self, images: Tensor) -> Tensor:
        """Return the coefficients of flat images, both ``(..., n_pixels)``."""
        values = images.unflatten(-1, self.shape)
        return self._analysed(values, 0).flatten(-3)

    def _analysed(self, values: Tensor, level: int) -> Tensor:
        if level == self.n_levels:
            return values
        rows, columns = self._matrices(level)
        h, w = len(rows) // 2, len(columns) // 2
        # rows first, so that the larger product is one matrix product
        split = rows @ (values @ columns.T)
        coarse = self._analysed(split[..., :h, :w], level + 1)
        top = torch.cat([coarse, split[..., :h, w:]], dim=-1)
        return torch.cat([top, split[..., h:, :]], dim=-2)

    def inverse(self, coefficients: Tensor) -> Tensor:
        """Return the flat images of coefficients, both ``(..., n_pixels)``."""
        return self._composed(coefficients.unflatten(-1, self.shape), 0).flatten(-3)

    def pixel_variance(self, variance: Tensor) -> Tensor:
        """Return the variance of pixels, if the coefficients of a band have the same variance.

        Both are ``(..., n_pixels)``.
        """
        of_channel = variance.unflatten(-1, (self.shape[0], -1))[..., self.first]
        return (of_channel @ self.profiles).flatten(-2)

    def _composed(self, values: Tensor, level: int) -> Tensor:
        if level == self.n_levels:
            return values
        rows, columns = self._matrices(level)
        h, w = len(rows) // 2, len(columns) // 2
        coarse = self._composed(values[..., :h, :w], level + 1)
        top = torch.cat([coarse, values[..., :h, w:]], dim=-1)
        joined = torch.cat([top, values[..., h:, :]], dim=-2)
        return rows.T @ (joined @ columns)
