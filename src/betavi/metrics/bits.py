"""Bits per pixel."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, TypeVar

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

T = TypeVar("T", float, np.ndarray)


def bits_per_pixel(nats: T, shape: Sequence[int]) -> T:
    """Convert nats per image to bits per pixel, the usual unit for likelihoods of images.

    Values of two models are comparable only if both give the probability of the same integers. If a
    model has a density, integrate it over the rounding step of each pixel first.

    Parameters
    ----------
    nats
        Nats per image, such as −ELBO: one number, or one for each image.
    shape
        Shape of an image, ``(n_channels, height, width)``. The number of values is their product.

    Returns
    -------
    Bits for each value of the image: a pixel of two channels has two values.

    Raises
    ------
    ValueError
        If a number in ``shape`` is below 1.

    Examples
    --------
    A pixel that is 0 or 1 with equal probability has one bit:

    >>> import numpy as np, betavi
    >>> betavi.metrics.bits_per_pixel(16 * np.log(2), (1, 4, 4)).round(6)
    np.float64(1.0)
    """
    if not shape or min(shape) < 1:
        raise ValueError(f"`shape` must have numbers of at least 1, not {shape!r}.")
    return nats / (math.prod(shape) * math.log(2))
