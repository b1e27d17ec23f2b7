"""Checks of images before registration."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from betavi import _blocks
from betavi._tables import close_matches, lookup
from betavi.data import COUNTS, format_in
from betavi.likelihoods import IMAGE_LIKELIHOODS, LIKELIHOODS
from betavi.model.setup.check_obs import LARGEST_VALUE
from betavi.model.setup.messages import name_some, warn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from anndata import AnnData

    from betavi.data import ImageFormat

SIDES, MULTIPLE = (32, 128), 16
"""Smallest and largest side of an image, and the number that divides both sides."""

SATURATED, PILED_UP = 1e-3, 5.0
"""Least share of saturated pixels, and their least ratio to pixels of the next lower level."""


def check_images(
    adata: AnnData,
    key: str,
    label: str,
    report_constant: Callable[[str], None] | None,
    *,
    warn_saturated: bool = True,
) -> None:
    """Check the images ``obsm[key]`` of an object. Messages name the first invalid cell.

    ``label`` is the object's name in messages. ``report_constant`` receives a message about
    constant images, or raises an error. None skips this message.
    """
    if not isinstance(key, str) or key not in adata.obsm:
        raise KeyError(f"{label}.obsm has no images {key!r}. {close_matches(key, adata.obsm)}")
    images, where = adata.obsm[key], f"{label}.obsm[{key!r}]"
    _check_shape(images, where)
    n_cells, n_channels = images.shape[:2]
    lowest, highest = np.full((2, n_cells, n_channels), np.nan)
    for start, block in _blocks_of(images):
        _check_values(block, start, where, adata)
        rows = slice(start, start + len(block))
        lowest[rows], highest[rows] = block.min(axis=(2, 3)), block.max(axis=(2, 3))
    channels = np.flatnonzero(lowest.min(axis=0) == highest.max(axis=0))
    if len(channels):
        raise ValueError(
            f"Channel {name_some(channels.tolist())} of {where} has the same value in all pixels of "
            f"all cells. Remove the channel: {label}.obsm[{key!r}] = np.delete({label}.obsm[{key!r}], "
            f"{channels.tolist()}, axis=1)"
        )
    cells = np.flatnonzero((lowest == highest).all(axis=1))
    if len(cells) and report_constant is not None:
        report_constant(
            f"{len(cells)} image(s) of {where} are constant: {name_some(adata.obs_names[cells])} "
            f"(row {name_some(cells.tolist())}). They are probably empty crops. Remove these cells."
        )
    if warn_saturated:
        _warn_saturated(images, highest.max(axis=0), where)


def _check_shape(images: Any, where: str) -> None:
    if not isinstance(images, np.ndarray):
        raise TypeError(
            f"{where} is a {type(images).__name__}, not a NumPy array. Load the images into memory: "
            "np.asarray(images)"
        )
    if images.dtype.kind not in "iuf":
        raise ValueError(f"{where} has dtype {images.dtype}, not numbers. Convert it to numbers.")
    if images.ndim != 4:
        hint = (
            " For one channel, use images[:, None]. For cells by pixels, reshape the images."
            if images.ndim < 4
            else ""
        )
        raise ValueError(
            f"{where} has {images.ndim} dimensions, {images.shape}, but images have 4: cells, channels, "
            f"rows and columns.{hint}"
        )
    n_cells, n_channels, *sides = images.shape
    if not n_cells or not n_channels:
        raise ValueError(f"{where} is empty: it has {n_cells} cells and {n_channels} channels.")
    low, high = SIDES
    if any(not low <= side <= high or side % MULTIPLE for side in sides):
        last = (
            " The last dimension looks like channels. Move it: np.moveaxis(images, -1, 1)"
            if sides[1] <= 4 < n_channels
            else " Crop, pad or resize the images."
        )
        raise ValueError(
            f"{where} has images of {sides[0]} by {sides[1]} pixels, but sides must be multiples of "
            f"{MULTIPLE} from {low} to {high} pixels.{last}"
        )


def _blocks_of(images: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    size = max(1, _blocks.SCANNED_ENTRIES // max(1, images[0].size))
    for start in range(0, len(images), size):
        yield start, images[start : start + size]


def _check_values(block: np.ndarray, start: int, where: str, adata: AnnData) -> None:
    if block.dtype.kind != "f":
        return
    faults = (
        (~np.isfinite(block), "NaN or infinite", "Replace the value, or remove the cell."),
        (np.abs(block) > LARGEST_VALUE, "too large", f"Values are at most {LARGEST_VALUE:g}."),
    )
    for wrong, fault, remedy in faults:
        if wrong.any():
            cell, channel, y, x = (int(i) for i in np.unravel_index(wrong.argmax(), wrong.shape))
            raise ValueError(
                f"{where} has a value that is {fault}: {block[cell, channel, y, x]} in cell "
                f"{adata.obs_names[start + cell]!r} (row {start + cell}), channel {channel}, pixel "
                f"({y}, {x}). {remedy}"
            )


def _warn_saturated(images: np.ndarray, highest: np.ndarray, where: str) -> None:
    """Warn if many more pixels have the largest value than the next lower one."""
    for channel, most in enumerate(highest):
        n_most, below = 0, -np.inf
        for _, block in _blocks_of(images):
            values = block[:, channel]
            n_most += int((values == most).sum())
            below = max(below, values.max(initial=values.min(), where=values < most))
        if n_most < SATURATED * len(images) * images.shape[2] * images.shape[3]:
            continue
        n_below = sum(int((block[:, channel] == below).sum()) for _, block in _blocks_of(images))
        if n_most > PILED_UP * n_below:
            share = n_most / images[:, channel].size
            warn(
                f"{share:.1%} of the pixels in channel {channel} of {where} have the largest value, "
                f"{most:g}. They are probably saturated, so their true brightness is unknown, and the "
                "model learns a false one. Use images of a shorter exposure, or ignore bright regions "
                "in the results."
            )


def check_image_likelihood(name: str, likelihood: str, image: ImageFormat) -> None:
    """Raise a ValueError if a likelihood is not of images, or does not fit the images."""
    what = "gene_likelihood" if name == COUNTS else f"likelihoods[{name!r}]"
    if likelihood in set(LIKELIHOODS) - set(IMAGE_LIKELIHOODS):
        raise ValueError(
            f"{what} is {likelihood!r}, a likelihood of counts, but the data are images. Use one of "
            f"{', '.join(map(repr, IMAGE_LIKELIHOODS))}."
        )
    lookup(IMAGE_LIKELIHOODS, likelihood, what).check(image)


def check_format(adata: AnnData, registry: Mapping[str, Any], name: str, key: str) -> None:
    """Raise a ValueError if images have another size than those of a model."""
    image, shape = format_in(registry, name), adata.obsm[key].shape[1:]
    if image is not None and tuple(shape) != image.shape:
        raise ValueError(
            f"obsm[{key!r}] has images of shape {tuple(shape)}, but the model was set up with images of "
            f"shape {image.shape}: channels, rows and columns. Resize the images."
        )
