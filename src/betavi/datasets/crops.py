"""Crops of a large image, split by place."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.lib.stride_tricks import sliding_window_view

from betavi._tables import check_whole

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

TRAINING, HELD_OUT = "training", "held_out"
DARK, BRIGHT = 0.01, 0.99
"""Quantiles of pixels that define the contrast of a crop."""


def crops(
    image: ArrayLike,
    size: int = 64,
    stride: int | None = None,
    *,
    split: float = 0.5,
    min_contrast: float = 0.0,
) -> AnnData:
    """Cut a large image into square crops, and split them by place.

    Crops on the left are for training. Crops on the right are held out. No pixel is in both sets.
    Crops of one set overlap if ``stride`` is smaller than ``size``.

    Parameters
    ----------
    image
        Image ``(height, width)``, or ``(n_channels, height, width)``, without missing values.
    size
        Height and width of a crop, in pixels.
    stride
        Distance between neighbouring crops, in pixels. By default ``size``: no crops overlap.
    split
        Share of the width of the image that is for training.
    min_contrast
        Smallest contrast of a crop, in the unit of the image. Crops with less contrast are left
        out. The contrast is the 99 % quantile of the pixels minus their 1 % quantile, in the channel
        where it is largest. A crop with only normal noise has a contrast of 4.7 standard deviations.
        By default, all crops are kept.

    Returns
    -------
    AnnData without features. ``obsm["image"]`` has the crops, ``(n_crops, n_channels, size, size)``,
    in the type of the image. ``obs`` has ``row`` and ``column`` of the first pixel, ``set``
    (``"training"`` or ``"held_out"``) and ``contrast``.

    Raises
    ------
    ValueError
        If a number is out of range, if the image has another shape or missing values, if a side of
        the split is smaller than a crop, or if a set has no crop with enough contrast.

    Examples
    --------
    >>> import numpy as np, betavi
    >>> image = np.random.default_rng(0).poisson(10, (64, 128))
    >>> adata = betavi.datasets.crops(image, size=32, stride=16)
    >>> adata.obsm["image"].shape, int((adata.obs["set"] == "training").sum())
    ((18, 1, 32, 32), 9)
    """
    pixels = _channels(image)
    stride = size if stride is None else stride
    check_whole("size", size)
    check_whole("stride", stride)
    if not 0 < split < 1:
        raise ValueError(f"`split` must be above 0 and below 1, not {split!r}.")
    height, width = pixels.shape[1:]
    edge = round(split * width)
    if size > min(height, edge, width - edge):
        raise ValueError(
            f"`size` is {size} pixels, but the image has {height} rows, and {edge} columns on the left "
            f"and {width - edge} on the right of the split. Use smaller crops, or another `split`."
        )
    rows = np.arange(0, height - size + 1, stride)
    left, right = np.arange(0, edge - size + 1, stride), np.arange(edge, width - size + 1, stride)
    row, column = np.meshgrid(rows, np.concatenate([left, right]), indexing="ij")
    obs = pd.DataFrame({"row": row.ravel(), "column": column.ravel()})
    obs["set"] = pd.Categorical(
        np.where(obs["column"] < edge, TRAINING, HELD_OUT), [TRAINING, HELD_OUT]
    )
    windows = sliding_window_view(pixels, (size, size), axis=(1, 2))
    cut = windows[:, row.ravel(), column.ravel()].swapaxes(0, 1)
    dark, bright = np.quantile(cut, [DARK, BRIGHT], axis=(2, 3))
    obs["contrast"] = (bright - dark).max(axis=1)
    obs.index = "r" + obs["row"].astype(str) + "_c" + obs["column"].astype(str)
    keep = (obs["contrast"] >= min_contrast).to_numpy()
    for name in (TRAINING, HELD_OUT):
        if not (keep & (obs["set"] == name)).any():
            raise ValueError(
                f"The set {name!r} has no crop with a contrast of at least `min_contrast`, "
                f"{min_contrast:g}. The largest is {obs['contrast'][obs['set'] == name].max():g}."
            )
    return AnnData(obs=obs[keep], obsm={"image": np.ascontiguousarray(cut[keep])})


def _channels(image: ArrayLike) -> np.ndarray:
    """Return the image with its channels first."""
    pixels = np.asarray(image)
    if pixels.ndim not in {2, 3} or 0 in pixels.shape:
        raise ValueError(
            f"`image` has shape {pixels.shape}. Pass (height, width) or (n_channels, height, width)."
        )
    pixels = pixels if pixels.ndim == 3 else pixels[None]
    if pixels.dtype.kind not in "buif":
        raise ValueError(f"`image` has type {pixels.dtype}. Pass numbers.")
    if (bad := np.argwhere(~np.isfinite(pixels))).size:
        channel, row, column = bad[0]
        raise ValueError(
            f"`image` has {len(bad)} pixels that are not finite, e.g. in row {row}, column {column} of "
            f"channel {channel}. Replace them, or cut out another part."
        )
    return pixels
