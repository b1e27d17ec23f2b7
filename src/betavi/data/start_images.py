"""Moments and principal components of training images, used to initialise models of images."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, cast

import numpy as np
import torch
from scvi import REGISTRY_KEYS
from sklearn.utils.extmath import randomized_svd

from betavi import _blocks
from betavi.data.images import format_in

if TYPE_CHECKING:
    from torch import Tensor

    from betavi.data.minibatches import CellManager
    from betavi.data.rows import AlignedRows, Rows

SAMPLED_VALUES = 2**24
"""Pixels of the images whose components are found: 4,096 images of 64 by 64 pixels. Not tuned."""

FITTED_SHARE = 0.8
"""Share of the images in which components are found. The others give their variances. Not tuned."""

SMALLEST_VARIANCE = 1e-12


class ImageStart(NamedTuple):
    """Values of training images, from which training starts.

    Parameters
    ----------
    mean, deviation
        Mean and standard deviation of the pixels of each channel, ``(n_channels,)``.
    images
        Some images, ``(n_images, n_pixels)``. The mean image of each batch is replaced by the mean
        image of all batches.
    """

    mean: Tensor
    deviation: Tensor
    images: Tensor


class ImageComponents(NamedTuple):
    """Probabilistic principal components of images.

    Parameters
    ----------
    centre
        Mean image, ``(n_pixels,)``.
    effects
        Change of the image for one unit of each latent dimension, ``(n_components, n_pixels)``.
    readers
        Change of the posterior mean of each latent dimension for one unit of each pixel,
        ``(n_components, n_pixels)``.
    variance
        Posterior variance of each latent dimension, ``(n_components,)``. It is 1 without signal.
    residual
        Images in which no components were searched, minus the centre, ``(n_others, n_pixels)``.
        Their components are scaled down to the strength of the noise.
    """

    centre: Tensor
    effects: Tensor
    readers: Tensor
    variance: Tensor
    residual: Tensor


def image_start(manager: CellManager, key: str, cells: np.ndarray) -> ImageStart:
    """Return the start values of images over chosen cells. Cells without images are skipped."""
    image = format_in(manager.registry, key)
    assert image is not None
    rows = cast("Rows | AlignedRows", manager.rows(key))
    cells = np.sort(cells[rows.present[cells]])
    if not len(cells):
        raise ValueError(
            f"No training cell has images in the modality {key!r}. Hold out fewer cells."
        )
    sums, squares = np.zeros((2, image.n_channels))
    for start in range(0, len(cells), _blocks.DENSE_CELLS):
        block = rows.dense(cells[start : start + _blocks.DENSE_CELLS], np.float64)
        block = block.reshape(len(block), image.n_channels, -1) - image.lowest
        sums += block.sum(axis=(0, 2))
        squares += np.square(block).sum(axis=(0, 2))
    n_values = len(cells) * image.height * image.width
    mean = sums / n_values
    deviation = np.sqrt(np.maximum(squares / n_values - np.square(mean), SMALLEST_VARIANCE))
    n_sampled = max(2, SAMPLED_VALUES // image.n_pixels)
    some = cells[:: -(-len(cells) // n_sampled)]
    codes = manager.get_from_registry(REGISTRY_KEYS.BATCH_KEY)[some].ravel()
    return ImageStart(
        torch.as_tensor(mean + image.lowest).float(),
        torch.as_tensor(deviation).float(),
        torch.as_tensor(_without_batches(rows.dense(some, np.float32), codes)),
    )


def _without_batches(images: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Replace the mean image of each batch by the mean image of all."""
    images, centre = images.copy(), images.mean(axis=0)
    for code in np.unique(codes):
        images[codes == code] += centre - images[codes == code].mean(axis=0)
    return images


def image_components(images: Tensor, n_components: int) -> ImageComponents:
    """Return probabilistic principal components of images, ``(n_images, n_pixels)``.

    The variances of components and noise come from images in which no components were searched. A
    component that describes only the other images then has no variance, and no effect.

    References
    ----------
    Tipping & Bishop (1999), Probabilistic principal component analysis.

    Examples
    --------
    >>> from betavi.data.start_images import image_components
    >>> generator = torch.Generator().manual_seed(0)
    >>> noise, shared = (torch.randn(500, n, generator=generator) for n in (20, 1))
    >>> (image_components(noise + 3 * shared, 2).variance < 0.5).tolist()
    [True, False]
    """
    values = images.cpu().numpy()
    n_fitted = max(1, int(FITTED_SHARE * len(values)))
    centre = values[:n_fitted].mean(axis=0)
    first, last = values[:n_fitted] - centre, values[n_fitted:] - centre
    last = last if len(last) else first
    n_found = min(n_components, n_fitted - 1, values.shape[1] - 1)
    basis = np.zeros((n_components, values.shape[1]), np.float32)
    if n_found:
        basis[:n_found] = randomized_svd(first, n_found, random_state=0)[2]
    scores = last @ basis.T
    outside = np.square(last).sum() - np.square(scores).sum()
    noise = max(outside / (len(last) * (values.shape[1] - n_found)), SMALLEST_VARIANCE)
    power = (np.square(scores).mean(axis=0) / noise).clip(1)
    effects = np.sqrt(noise * (power - 1))[:, None] * basis
    readers = (np.sqrt((power - 1) / noise) / power)[:, None] * basis
    residual = last - (scores * (1 - power**-0.5)) @ basis
    found = centre, effects, readers, 1 / power, residual
    return ImageComponents(*(torch.as_tensor(x).to(images) for x in found))
