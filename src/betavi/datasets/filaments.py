"""Curves of filaments, and their images through a microscope."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from scipy import fft, special

if TYPE_CHECKING:
    from numpy.random import Generator

STEP = 0.5
"""Distance between neighbouring points of a curve, in pixels."""

N_PLACE = 3  # variables of a filament besides its bends: row, column and direction
CONSTANT_SHARE = 0.5
"""Share of the layout's fixed part that all cells have in common; the latent sets the rest."""

SDS_PER_WIDTH = 1 / math.sqrt(8 * math.log(2))
"""Standard deviation of a normal curve with a full width at half maximum of 1."""

AIRY_CUTOFF = 1.029
"""Highest frequency that an ideal lens passes, times the full width at half maximum."""


class Layout:
    """Places and bends of filaments, partly set by the latent factors of a cell.

    Each variable of a filament is standard normal over cells: a constant, a linear function of the
    factors, and a random part.
    """

    def __init__(self, rng: Generator, sizes: tuple[int, int, int], share: float) -> None:
        n_filaments, n_steps, n_factors = sizes
        shape = (n_filaments, N_PLACE + n_steps)
        self.constant = math.sqrt(share * CONSTANT_SHARE) * rng.normal(size=shape)
        weights = rng.normal(size=(n_factors, *shape))
        weights /= np.linalg.norm(weights, axis=0)
        self.weights = math.sqrt(share * (1 - CONSTANT_SHARE)) * weights
        self.random_sd = math.sqrt(1 - share)

    def draw(self, rng: Generator, z: np.ndarray) -> np.ndarray:
        """Return standard normal variables ``(n_cells, n_filaments, 3 + n_steps)``."""
        fixed = self.constant + np.tensordot(z, self.weights, axes=1)
        return fixed + self.random_sd * rng.normal(size=fixed.shape)


def curves(u: np.ndarray, size: int, persistence: np.ndarray, n_points: np.ndarray) -> np.ndarray:
    """Return worm-like chains, rows and columns in pixels, ``(2, n_cells, n_filaments, n_steps)``.

    The direction is a random walk along the curve. The middle of a curve is at a uniform place.
    """
    bends = np.sqrt(STEP / persistence)[:, None, None] * u[..., N_PLACE:]
    place = special.ndtr(u[..., :N_PLACE])
    angle = 2 * np.pi * place[..., 2:] + bends.cumsum(axis=-1)
    points = STEP * np.stack([np.sin(angle), np.cos(angle)]).cumsum(axis=-1)
    middle = np.broadcast_to((n_points // 2)[None, :, None, None], (*points.shape[:-1], 1))
    points -= np.take_along_axis(points, middle, axis=-1)
    points += (size - 1) * np.moveaxis(place[..., :2], -1, 0)[..., None]
    return points


def drawn(points: np.ndarray, is_shown: np.ndarray, size: int) -> np.ndarray:
    """Spread points over the four pixels around each, ``(n_cells, size, size)``.

    The sum of an image is the length of its curves within the frame, in pixels.
    """
    row, column = points
    inside = is_shown & (row >= 0) & (row < size - 1) & (column >= 0) & (column < size - 1)
    cell = np.nonzero(inside)[0]
    row, column = row[inside], column[inside]
    top, left = row.astype(int), column.astype(int)
    down, right = row - top, column - left
    n_pixels = len(points[0]) * size**2
    image = np.zeros(n_pixels)
    for at_row, share in ((top, 1 - down), (top + 1, down)):
        for at_column, part in ((left, 1 - right), (left + 1, right)):
            flat = (cell * size + at_row) * size + at_column
            image += np.bincount(flat, STEP * share * part, n_pixels)
    return image.reshape(-1, size, size)


def seen(image: np.ndarray, thickness: np.ndarray, psf: str, width: float) -> np.ndarray:
    """Blur each image by the thickness of its filaments, and by the point spread function.

    Parameters
    ----------
    image
        Images ``(n_cells, height, width)``.
    thickness
        Standard deviation of the profile of a filament, ``(n_cells,)``, in pixels.
    psf
        Key of ``TRANSFER``.
    width
        Full width of the point spread function at half of its maximum, in pixels.
    """
    height, length = image.shape[1:]
    square = fft.fftfreq(height)[:, None] ** 2 + fft.rfftfreq(length) ** 2
    spectrum = fft.rfft2(image) * gaussian_transfer(square, thickness[:, None, None])
    spectrum *= TRANSFER[psf](square, width)
    # an image of light has no negative values, except for rounding
    return fft.irfft2(spectrum, s=(height, length)).clip(0)


def gaussian_transfer(square: np.ndarray, sd: float | np.ndarray) -> np.ndarray:
    """Return the factor by which a normal blur damps each squared frequency."""
    return np.exp(-2 * np.pi**2 * np.square(sd) * square)


def _of_gaussian(square: np.ndarray, width: float) -> np.ndarray:
    return gaussian_transfer(square, SDS_PER_WIDTH * width)


def _of_airy(square: np.ndarray, width: float) -> np.ndarray:
    """Return the factors of an ideal lens with a round opening."""
    share = (np.sqrt(square) * width / AIRY_CUTOFF).clip(0, 1)
    return 2 / np.pi * (np.arccos(share) - share * np.sqrt(1 - share**2))


TRANSFER = {"gaussian": _of_gaussian, "airy": _of_airy}
