"""Validated arguments of ``generate``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from scvi import REGISTRY_KEYS, settings

from betavi._tables import check_whole, lookup
from betavi.data import COUNTS
from betavi.model.core.covariates import batch_codes
from betavi.model.core.density import checked_positions
from betavi.model.generation.sources import SOURCES, at_positions
from betavi.model.setup.selection import cells_named

if TYPE_CHECKING:
    from collections.abc import Mapping

    from betavi.model.core.latent_model import LatentModel
    from betavi.model.generation.sources import Source

DEFAULT_SOURCE = "prior"
"""Default source of positions. ``latent`` replaces it."""


class GenerationRequest(NamedTuple):
    """Validated arguments of :func:`betavi.model.generation.generate.generate`.

    ``name`` is the name of the source, or ``"latent"`` if positions are given. ``cells`` are the
    measured cells to draw around, or to take covariates from. ``totals`` are the expected totals by
    modality, ``(n_cells, 1)``.
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
    """Validate the arguments of ``generate``.

    Raises a KeyError or an IndexError if a cell does not exist, and a ValueError if another
    argument is invalid or two arguments exclude each other.
    """
    sampler, name = lookup(SOURCES, source, "source"), source
    if batch is not None and np.ndim(batch) > 0:
        raise ValueError(f"`batch` must be one batch, not {batch!r}.")
    if latent is not None:
        if cells is not None or source != DEFAULT_SOURCE:
            raise ValueError(
                "`latent` replaces `source` and `cells`. Leave out either `latent`, or both others."
            )
        sampler, name, latent = at_positions, "latent", checked_positions(model, latent)
        n_cells = len(latent) if n_cells is None else n_cells
    if cells is None:
        measured = cells_of_batch(model, batch)
    else:
        # named cells may be decoded in another batch, which must exist
        batch_codes(model.adata_manager, batch)
        measured = cells_named(model.adata.obs_names, cells, "cells")
        n_cells = len(measured) if n_cells is None else n_cells
    if n_cells is None:
        raise ValueError("The number of cells is missing. Pass `n_cells`.")
    check_whole("n_cells", n_cells)
    is_named, seed = cells is not None, settings.seed if seed is None else seed
    rng = np.random.default_rng(seed)
    totals = {part: _total_per_cell(part, size, n_cells) for part, size in totals.items()}
    return GenerationRequest(
        name, sampler, n_cells, measured, is_named, latent, batch, seed, rng, totals, show_progress
    )


def expected_totals(model: LatentModel, library_size: Any) -> dict[str, Any]:
    """Return the user's library sizes by modality.

    Raises a ValueError if a size is not positive, or a modality is unknown or has no library size.
    """
    try:
        sizes = model.adapter.by_modality(library_size)
    except (TypeError, ValueError):
        example = f"{{{model.modalities[0]!r}: {library_size!r}}}"
        raise ValueError(f"`library_size` must be given by modality, e.g. {example}") from None
    for name, size in sizes.items():
        lookup(dict.fromkeys(model.modalities, True), name, "The modality of `library_size`")
        numbers = np.asarray(size)
        if numbers.dtype.kind not in "iuf" or not ((numbers > 0) & np.isfinite(numbers)).all():
            raise ValueError(f"{_label(name)} must be a positive number, not {size!r}.")
        if not model.likelihood(name).reads_size:
            raise ValueError(
                f"`library_size` cannot set the total of the modality {name!r}, because this total "
                f"is decoded from z. Leave {name!r} out of `library_size`."
            )
    return sizes


def cells_of_batch(model: LatentModel, batch: str | int | None) -> np.ndarray:
    """Return the cells of a batch, or all cells. Raises a ValueError for an empty batch."""
    (code,) = batch_codes(model.adata_manager, batch)
    codes = model.adata_manager.get_from_registry(REGISTRY_KEYS.BATCH_KEY).ravel()
    cells = np.arange(len(codes)) if code is None else np.flatnonzero(codes == code)
    if not len(cells):
        raise ValueError(
            f"The batch {batch!r} has no cells in the model's object. Choose a batch with cells."
        )
    return cells


def _total_per_cell(name: str, size: Any, n_cells: int) -> np.ndarray:
    """Return the total of each cell, ``(n_cells, 1)``, from one number or one number per cell."""
    if np.ndim(size) > 0 and np.shape(size) != (n_cells,):
        raise ValueError(
            f"{_label(name)} has shape {np.shape(size)}, but {n_cells} cells are generated. Pass "
            f"one number, or an array of shape ({n_cells},)."
        )
    return np.full(n_cells, size, dtype=np.float32)[:, None]


def _label(name: str) -> str:
    return "`library_size`" if name == COUNTS else f"`library_size[{name!r}]`"
