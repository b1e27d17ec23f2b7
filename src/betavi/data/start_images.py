"""Moments and principal components of training images, used to initialise models of images."""

from __future__ import annotations

import math
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
"""Pixels of all images whose components are found: 4,096 images of 64 by 64. Not tuned."""

FITTED_SHARE = 0.8
"""Share of the images in which components are found. The others give their variances. Not tuned."""

N_ERRORS = 2.0
"""Least number of standard errors by which a component exceeds the noise. Not tuned."""

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
    residual
        Images in which no components were searched, minus the centre, ``(n_others, n_pixels)``.
        Their components are scaled down to the strength of the noise.
    """

    centre: Tensor
    effects: Tensor
    residual: Tensor

    def of_pixels(self, pixels: slice) -> ImageComponents:
        """Return the components of some pixels, those of one modality."""
        return ImageComponents(
            self.centre[pixels], self.effects[:, pixels], self.residual[:, pixels]
        )

    def posterior(self, beta: float = 1.0) -> tuple[Tensor, Tensor]:
        """Return the change of the posterior mean for each pixel, and the posterior variance.

        ``(n_components, n_pixels)`` and ``(n_components,)``. The variance is 1 without signal. β
        is like stronger noise.
        """
        noise = beta * self.residual.square().mean().clamp_min(SMALLEST_VARIANCE)
        precision = self.effects @ self.effects.T + noise * torch.eye(len(self.effects)).to(noise)
        inverse = precision.double().inverse().float()
        return inverse @ self.effects, noise * inverse.diagonal()


def image_start(
    manager: CellManager, key: str, cells: np.ndarray, n_sampled: int = 4096
) -> ImageStart:
    """Return the start values of images over chosen cells, with at most ``n_sampled`` images.

    Cells without images are skipped.
    """
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


def image_components(images: Tensor, n_components: int, beta: float = 1.0) -> ImageComponents:
    """Return probabilistic principal components of images, ``(n_images, n_pixels)``.

    The variances of components and noise come from images in which no components were searched. A
    component that describes only the other images then has no variance, and no effect. With a high
    ``beta``, weak components have no effect either: they cost more than they explain.

    References
    ----------
    Tipping & Bishop (1999), Probabilistic principal component analysis. Lucas et al. (2019), Don't
    blame the ELBO, for the weight of the rate as noise.

    Examples
    --------
    >>> from betavi.data.start_images import image_components
    >>> generator = torch.Generator().manual_seed(0)
    >>> noise, shared = (torch.randn(500, n, generator=generator) for n in (20, 1))
    >>> (image_components(noise + 3 * shared, 2).posterior()[1] < 0.5).tolist()
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
    power = (np.square(scores).mean(axis=0) / noise).clip(beta)
    # a component of noise exceeds the noise by chance
    by_chance = 1 + N_ERRORS * math.sqrt(2 / len(last))
    power = np.where(power < beta * by_chance, beta, power)
    effects = np.sqrt(noise * (power - beta))[:, None] * basis
    # a component without effect is noise
    residual = last - (scores * (1 - np.sqrt(beta / power))) @ basis
    found = centre, effects, residual
    return ImageComponents(*(torch.as_tensor(x).to(images) for x in found))
