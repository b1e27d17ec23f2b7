"""Power of images by spatial frequency."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy import fft

from betavi.metrics._images import image_blocks, read_noise, read_pair

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

NOISE_FREQUENCY = 0.5
"""Radial frequency, cycles per pixel, from which on an image is taken to be only noise."""

SMALLEST_SHARE, N_ERRORS = 0.1, 2.0
"""Least signal relative to noise, and least number of standard errors, of a band with signal."""


def power_ratio(
    truth: ArrayLike, reconstruction: ArrayLike, noise_sd: ArrayLike | None = None
) -> pd.DataFrame:
    r"""Compare the power of images and reconstructions, by bands of spatial frequency.

    A blurred reconstruction lacks power in fine bands. A draw from a good model has the power of
    the truth in each band. Each band is an octave: band 1 has structures
    with a period of up to 4 pixels, band 2 of 4 to 8 pixels, and so on. The power of a band is the
    mean squared coefficient of the discrete cosine transform. White noise with variance
    :math:`\sigma^2` has the power :math:`\sigma^2` in each band. Power does not show whether
    structures are in the right place. The column ``correlation`` does.

    Parameters
    ----------
    truth
        Measured images, ``(n_images, n_channels, height, width)``, or their expectation without
        noise.
    reconstruction
        Reconstructions of the same images, means or draws, in the same unit.
    noise_sd
        Standard deviation of the noise in ``truth``: one number, or an array that broadcasts to its
        shape. By default, the noise is estimated from frequencies of at least 0.5 cycles per pixel,
        which are the diagonal ones. Signal at these frequencies, or noise that neighbouring pixels
        share, makes the estimate wrong. The estimate is one number for each channel.

    Returns
    -------
    One row for each channel and each band, from coarse to fine. Columns: ``channel``, ``band``;
    ``low`` and ``high``, the radial frequencies in cycles per pixel; ``truth``, ``noise`` and
    ``reconstruction``, the power, in the squared unit of the image; ``signal``, the power of truth
    minus noise, at least 0; ``ratio``, the power of the reconstruction divided by the power of the
    truth, for draws; ``ratio_error``, the standard error of the ratio over images;
    ``signal_ratio``, the power of the reconstruction divided by the signal, for means;
    ``correlation`` of the coefficients of truth and reconstruction; ``has_signal``, True if the
    signal is at least a tenth of the noise and twice its standard error over images. The last
    coarse band has all other structures. The mean of an image is in no band. Standard errors are
    too small if images overlap.

    Raises
    ------
    ValueError
        If the images have another shape, missing pixels or fewer than 8 × 8 pixels, or if the noise
        has another shape.

    References
    ----------
    Field (1987), Relations between the statistics of natural images and the response properties of
    cortical cells, for power by octaves. Harauz & van Heel (1986), Exact filters for general
    geometry three dimensional reconstruction, for the correlation by frequency.

    Examples
    --------
    >>> import betavi
    >>> from scipy.ndimage import gaussian_filter
    >>> mdata = betavi.datasets.simulate_filaments(n_cells=50, n_genes=0)
    >>> images = mdata["image"].obsm["image"].astype(float)
    >>> table = betavi.metrics.power_ratio(images, gaussian_filter(images, (0, 0, 1, 1)))
    >>> table["ratio"].is_monotonic_decreasing
    True
    """
    one, two = read_pair(truth, reconstruction)
    frequency = radial_frequency(one.shape[2:])
    bands = bands_of(frequency, min(one.shape[2:]))
    n_bands = int(bands.max())
    # 0 is the mean of the image, and the last column holds the noise
    groups = [bands == number for number in range(n_bands, 0, -1)]
    groups.append(frequency >= NOISE_FREQUENCY)
    parts = [_products(one[rows], two[rows], groups) for rows in image_blocks(len(one))]
    squares, others, products = (np.concatenate(part) for part in zip(*parts, strict=True))
    noise = squares[..., -1].mean(axis=0)
    if noise_sd is not None:
        noise = np.square(read_noise(noise_sd, one.shape)).mean(axis=(0, 2, 3))
    tables = [
        _of_channel(squares[:, c, :-1], others[:, c, :-1], products[:, c, :-1], noise[c])
        for c in range(one.shape[1])
    ]
    numbers = np.arange(n_bands, 0, -1)
    low, high = 0.5 ** (numbers + 1), 0.5**numbers
    low[0], high[-1] = 0, math.hypot(0.5, 0.5)
    for channel, table in enumerate(tables):
        columns = {"channel": channel, "band": numbers, "low": low, "high": high}
        tables[channel] = pd.DataFrame(columns).join(table)
    return pd.concat(tables, ignore_index=True)


def estimated_noise(images: np.ndarray) -> float:
    """Return the standard deviation of the noise, from the finest frequencies of all channels."""
    group = [radial_frequency(images.shape[2:]) >= NOISE_FREQUENCY]
    parts = [_products(images[rows], images[rows], group)[0] for rows in image_blocks(len(images))]
    return math.sqrt(np.concatenate(parts).mean())


def radial_frequency(shape: tuple[int, ...]) -> np.ndarray:
    """Return the frequency of each cosine, in cycles per pixel."""
    rows, columns = (np.arange(n) / (2 * n) for n in shape)
    return np.hypot(rows[:, None], columns)


def bands_of(frequency: np.ndarray, size: int) -> np.ndarray:
    """Return the band of each frequency: 1 is the finest, and 0 the mean of the image."""
    # the coarsest band of larger images has about 15 cosines
    n_bands = int(math.log2(size)) - 1
    with np.errstate(divide="ignore"):
        bands = (np.ceil(-np.log2(frequency)) - 1).clip(1, n_bands)
    return np.where(frequency == 0, 0, bands).astype(int)


def _products(
    truth: np.ndarray, reconstruction: np.ndarray, groups: list[np.ndarray]
) -> tuple[np.ndarray, ...]:
    """Return mean squares and products of coefficients, ``(n_images, n_channels, n_groups)``."""
    one, two = (
        fft.dctn(images.astype(float), axes=(-2, -1), norm="ortho")
        for images in (truth, reconstruction)
    )
    return tuple(
        np.stack([values[..., group].mean(axis=-1) for group in groups], axis=-1)
        for values in (one * one, two * two, one * two)
    )


def _of_channel(
    squares: np.ndarray, others: np.ndarray, products: np.ndarray, noise: float
) -> pd.DataFrame:
    """Return the columns of one channel, from values ``(n_images, n_bands)``."""
    power, other = squares.mean(axis=0), others.mean(axis=0)
    signal = (power - noise).clip(0)
    has_signal = signal > np.maximum(SMALLEST_SHARE * noise, N_ERRORS * _error(squares))
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = other / power
        correlation = products.mean(axis=0) / np.sqrt(power * other)
        signal_ratio = np.where(has_signal, other / signal, np.nan)
        # the error of a ratio of means, to first order
        ratio_error = _error(others - ratio * squares) / power
    return pd.DataFrame(
        {
            "truth": power,
            "noise": noise,
            "signal": signal,
            "reconstruction": other,
            "ratio": ratio,
            "ratio_error": ratio_error,
            "signal_ratio": signal_ratio,
            "correlation": correlation,
            "has_signal": has_signal,
        }
    )


def _error(values: np.ndarray) -> np.ndarray:
    """Return the standard error of the mean over images, infinite for one image."""
    n = len(values)
    if n < 2:
        return np.full(values.shape[1], math.inf)
    return np.asarray(values.std(axis=0, ddof=1) / math.sqrt(n))
