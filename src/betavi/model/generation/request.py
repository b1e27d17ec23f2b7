"""The arguments of ``generate``, validated."""

from __future__ import annotations

from numbers import Integral
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from scvi import REGISTRY_KEYS, settings

from betavi._tables import check_whole, lookup
from betavi.model.core.covariates import batch_codes
from betavi.model.core.density import checked_positions
from betavi.model.generation.sources import SOURCES, at_positions
from betavi.model.setup.selection import cells_named

if TYPE_CHECKING:
    from collections.abc import Mapping

    from betavi.model.core.latent_model import LatentModel
    from betavi.model.generation.sources import Source

DEFAULT = "prior"
"""Source of positions that ``latent=`` takes the place of."""


class GenerationRequest(NamedTuple):
    """Validated arguments of :func:`betavi.model.generation.generate.generate`.

    Parameters
    ----------
    name, source
        Name and function of the source of positions; ``"latent"`` if positions are given.
    n_cells
        Number of cells to generate.
    cells, cells_are_named
        Measured cells to draw around or to take covariates from, and whether the user named them.
    latent
        Positions in place of draws, ``(n, n_latent)``.
    batch
        Batch to decode all cells in; that of the measured cells if None.
    seed, rng
        Seed of the draws, and NumPy's generator with this seed.
    totals
        Requested expected totals by modality, ``(n_cells, 1)``.
    show_progress
        Whether to show a progress bar.
    """

    name: str
    source: Source
    n_cells: int
    cells: np.ndarray
    cells_are_named: bool
    latent: np.ndarray | None
    batch: str | int | None
    seed: int | None
    rng: np.random.Generator
    totals: Mapping[str, np.ndarray]
    show_progress: bool


def validated(
    model: LatentModel,
    n_cells: int | None,
    batch: str | int | None,
    source: str,
    cells: Any,
    latent: np.ndarray | None,
    seed: int | None,
    totals: Mapping[str, Any],
    show_progress: bool,
) -> GenerationRequest:
    """Return the request of a user.

    Raises
    ------
    KeyError, IndexError
        If a cell does not exist.
    ValueError
        If any other argument is invalid, or two contradict each other.
    """
    draw, name = lookup(SOURCES, source, "source"), source
    if seed is not None and (not isinstance(seed, Integral) or seed < 0):
        raise ValueError(f"seed is a whole number of at least 0, not {seed!r}.")
    if batch is not None and np.ndim(batch) > 0:
        raise ValueError(f"Cells are generated of one batch, not of {batch!r}.")
    if latent is not None:
        if cells is not None or source != DEFAULT:
            raise ValueError("latent= says where cells are, in the place of source and cells.")
        draw, name, latent = at_positions, "latent", checked_positions(model, latent)
        n_cells = len(latent) if n_cells is None else n_cells
    if cells is None:
        measured = cells_of_batch(model, batch)
    else:
        # named cells may be decoded in another batch than theirs
        batch_codes(model.adata_manager, batch)
        measured = cells_named(model.adata.obs_names, cells, "cells")
        n_cells = len(measured) if n_cells is None else n_cells
    if n_cells is None:
        raise ValueError("Say how many cells: n_cells=.")
    check_whole("n_cells", n_cells)
    seed = settings.seed if seed is None else seed
    return GenerationRequest(
        name,
        draw,
        n_cells,
        measured,
        cells is not None,
        latent,
        batch,
        seed,
        np.random.default_rng(seed),
        {part: _one_each(model, part, size, n_cells) for part, size in totals.items()},
        show_progress,
    )


def expected_totals(model: LatentModel, library_size: Any) -> dict[str, Any]:
    """Return the user's library sizes by modality.

    Raises
    ------
    ValueError
        If a size is not positive, or a modality is unknown or reads no size.
    """
    try:
        sizes = model.adapter.by_modality(library_size)
    except (TypeError, ValueError):
        shown = f"{{{model.modalities[0]!r}: {library_size!r}}}"
        raise ValueError(f"library_size is by modality, {shown}.") from None
    for name, size in sizes.items():
        lookup(dict.fromkeys(model.modalities, True), name, "The modality of a library_size")
        numbers = np.asarray(size)
        if numbers.dtype.kind not in "iuf" or not ((numbers > 0) & np.isfinite(numbers)).all():
            of = _of(model, name)
            raise ValueError(f"library_size{of} is a positive number, not {size!r}.")
        if not model.likelihood(name).reads_size:
            raise ValueError(f"How much of {name!r} there is is decoded, and no size sets it.")
    return sizes


def cells_of_batch(model: LatentModel, batch: str | int | None) -> np.ndarray:
    """Return the cells of a batch, or all of them.

    Raises
    ------
    ValueError
        If there are none, or no such batch.
    """
    (code,) = batch_codes(model.adata_manager, batch)
    codes = model.adata_manager.get_from_registry(REGISTRY_KEYS.BATCH_KEY).ravel()
    cells = np.arange(len(codes)) if code is None else np.flatnonzero(codes == code)
    if not len(cells):
        raise ValueError(f"The model's object has no cells of the batch {batch!r}.")
    return cells


def _one_each(model: LatentModel, name: str, size: Any, n_cells: int) -> np.ndarray:
    """Return the total of each cell, ``(n_cells, 1)``, from one number or one for each."""
    if np.ndim(size) > 0 and np.shape(size) != (n_cells,):
        raise ValueError(
            f"library_size{_of(model, name)} has the shape {np.shape(size)}, and {n_cells} cells are "
            f"to be generated: one number, or ({n_cells},)."
        )
    return np.full(n_cells, size, dtype=np.float32)[:, None]


def _of(model: LatentModel, name: str) -> str:
    """Name a modality in a message, if there are several."""
    return f" of {name!r}" if len(model.modalities) > 1 else ""
