"""Ridge filter of images: second derivatives at several scales."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

if TYPE_CHECKING:
    from collections.abc import Sequence

NEIGHBOURS = ((0, 1), (1, 1), (1, 0), (1, -1))
"""Row and column of the neighbour in four directions, 45° apart."""


def ridge_points(images: np.ndarray, scales: Sequence[float]) -> np.ndarray:
    """Return the strength of each ridge point, and 0 elsewhere, ``(n_images, height, width)``."""
    images = images.astype(float)
    best, across = _curvature(images, scales[0])
    for scale in scales[1:]:
        strength, angle = _curvature(images, scale)
        across = np.where(strength > best, angle, across)
        best = np.maximum(strength, best)
    return np.where(_is_highest(best, across), best, 0).clip(0)


def _curvature(images: np.ndarray, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the curvature across the strongest ridge, and its direction in radians.

    A curvature upwards along the ridge is subtracted, because the end of a bright line has saddles
    on both sides.
    """
    rows, columns, mixed = (
        scale**2 * ndimage.gaussian_filter(images, (0, scale, scale), order=(0, *order))
        for order in ((2, 0), (0, 2), (1, 1))
    )
    # eigenvalues of a symmetric 2 × 2 matrix: mean -+ half
    half = np.hypot((rows - columns) / 2, mixed)
    along = np.arctan2(2 * mixed, columns - rows) / 2
    mean = (rows + columns) / 2
    return half - mean - (half + mean).clip(0), along + np.pi / 2


def _is_highest(strength: np.ndarray, across: np.ndarray) -> np.ndarray:
    """Return a mask of the pixels above both neighbours across the ridge."""
    padded = np.pad(strength, ((0, 0), (1, 1), (1, 1)), mode="edge")
    height, width = strength.shape[1:]
    sector = np.round(across / (np.pi / 4)).astype(int) % 4
    highest = np.zeros(strength.shape, bool)
    for number, (row, column) in enumerate(NEIGHBOURS):
        after, before = (
            padded[:, 1 + r : 1 + r + height, 1 + c : 1 + c + width]
            for r, c in ((row, column), (-row, -column))
        )
        # of two equal pixels, one is a point
        highest |= (sector == number) & (strength > before) & (strength >= after)
    return highest
