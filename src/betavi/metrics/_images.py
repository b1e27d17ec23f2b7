"""Images as arguments of metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from betavi import _blocks

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import ArrayLike

SMALLEST = 8  # rows and columns


def read_images(name: str, images: ArrayLike) -> np.ndarray:
    """Return images ``(n_images, n_channels, height, width)``, or raise an error that names them."""
    values = np.asarray(images)
    if values.ndim != 4 or not values.size or values.dtype.kind not in "buif":
        raise ValueError(
            f"`{name}` has shape {values.shape} and type {values.dtype}. Pass numbers of shape "
            "(n_images, n_channels, height, width), such as adata.obsm['image']."
        )
    if min(values.shape[2:]) < SMALLEST:
        raise ValueError(
            f"`{name}` has images of {values.shape[2]} by {values.shape[3]} pixels. At least "
            f"{SMALLEST} by {SMALLEST} are needed."
        )
    is_bad = ~np.isfinite(values).all(axis=(1, 2, 3))
    if is_bad.any():
        raise ValueError(
            f"`{name}` has {is_bad.sum()} images with missing or infinite pixels, e.g. image "
            f"{np.flatnonzero(is_bad)[0]}. Leave them out."
        )
    return values


def read_pair(truth: ArrayLike, reconstruction: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Return two sets of images of the same shape."""
    one, two = read_images("truth", truth), read_images("reconstruction", reconstruction)
    if one.shape != two.shape:
        raise ValueError(
            f"`truth` has shape {one.shape} and `reconstruction` has shape {two.shape}. Pass the same "
            "images in the same order."
        )
    return one, two


def read_noise(noise_sd: ArrayLike, shape: tuple[int, ...]) -> np.ndarray:
    """Return the noise of every pixel, or raise an error."""
    values = np.asarray(noise_sd, dtype=float)
    try:
        values = np.broadcast_to(values, shape)
    except ValueError as error:
        raise ValueError(
            f"`noise_sd` has shape {values.shape}. Pass one number, or the shape of `truth`, {shape}."
        ) from error
    if not (np.isfinite(values) & (values >= 0)).all():
        raise ValueError("`noise_sd` must be finite and at least 0.")
    return values


def image_blocks(n_images: int) -> Iterator[slice]:
    """Yield slices of images, so that few are in double precision at once."""
    for start in range(0, n_images, _blocks.SCORED_IMAGES):
        yield slice(start, start + _blocks.SCORED_IMAGES)
