"""Positions of cells and features in a user's selection."""

from __future__ import annotations

import reprlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from anndata import AnnData
from mudata import MuData

from betavi._tables import close_matches
from betavi.model.setup.messages import name_some

if TYPE_CHECKING:
    from collections.abc import Iterable

    from scvi.model.base import BaseModelClass


def cells_named(names: pd.Index, selection: Any, argument: str) -> np.ndarray:
    """Return the positions of cells given by names, positions, a slice or a mask.

    Raises a KeyError for an unknown name, an IndexError for a position or a mask beyond the last
    cell, and a ValueError for an empty selection. ``argument`` names the selection in messages.
    """
    if isinstance(selection, str):
        selection = [selection]
    if isinstance(selection, slice):
        selection = np.arange(len(names))[selection]
    if isinstance(selection, AnnData | MuData):
        # NumPy would read an object entry by entry
        raise TypeError(
            f"`{argument}` must be names, whole numbers or a mask, not {type(selection).__name__}."
        )
    if isinstance(selection, set | dict):
        raise TypeError(
            f"`{argument}` must be in order, not {type(selection).__name__}. Pass a list."
        )
    chosen = np.atleast_1d(np.asarray(selection))
    if chosen.dtype == bool:
        if len(chosen) != len(names):
            raise IndexError(
                f"`{argument}` is a mask of {len(chosen)} values, but the object has {len(names)} "
                "cells. Pass a mask with one value per cell."
            )
        chosen = np.flatnonzero(chosen)
    elif chosen.size and _are_names(chosen):
        positions = names.get_indexer_for(pd.Index(chosen))
        if len(unknown := chosen[positions < 0]):
            raise KeyError(
                f"`{argument}` has {len(unknown)} unknown cell name(s), e.g. {str(unknown[0])!r}. "
                f"Names must be in `adata.obs_names`. {close_matches(unknown[0], names)} To select "
                "cells by type, pass a mask: adata.obs['cell_type'] == 'B'."
            )
        chosen = positions
    if not chosen.size:
        raise ValueError(f"`{argument}` selects no cell: {reprlib.repr(selection)}. Select a cell.")
    if chosen.dtype.kind not in "iu":
        raise ValueError(
            f"`{argument}` must be names, whole numbers or a mask, not {chosen.dtype}."
        )
    outside = (chosen < -len(names)) | (chosen >= len(names))
    if outside.any():
        raise IndexError(
            f"`{argument}` has position {chosen[outside][0]}, but there are {len(names)} cells."
        )
    return np.arange(len(names))[chosen]


def _are_names(values: np.ndarray) -> bool:
    """Return True for an array of names. Integers beyond 64 bits are objects, too."""
    is_object = values.dtype.kind == "O" and not any(isinstance(value, int) for value in values)
    return is_object or values.dtype.kind in "US"


SPLIT = ("training", "validation", "test")


def split_named(names: pd.Index, parts: Any) -> list[np.ndarray]:
    """Return the positions of the training, validation and test cells of ``external_indexing``.

    Each part is a selection as in :func:`cells_named`, or None or empty. Together, the parts must
    hold each cell once. Raises the errors of :func:`cells_named`, and a ValueError for other parts.
    """
    argument = "external_indexing"
    if isinstance(parts, str) or not isinstance(parts, Sequence) or not 1 <= len(parts) <= 3:
        raise ValueError(
            f"`{argument}` must be a list of one to three selections of cells: training, validation "
            f"and test, not {reprlib.repr(parts)}"
        )
    found = [
        np.array([], dtype=np.int64)
        if part is None or not np.size(part)
        else cells_named(names, part, f"{argument}[{number}]")
        for number, part in enumerate([*parts, None, None][:3])
    ]
    uses = np.bincount(np.concatenate(found), minlength=len(names))
    for wrong, fault in ((uses > 1, "more than once"), (uses == 0, "in no part")):
        if wrong.any():
            raise ValueError(
                f"`{argument}` must hold each cell once, but {wrong.sum()} cell(s) are {fault}: "
                f"{name_some(names[wrong])}. The parts are {', '.join(SPLIT)} cells."
            )
    return found


def features_named(names: pd.Index, wanted: Iterable[str] | None, holder: str) -> np.ndarray:
    """Return the positions of some features.

    None means all features. ``holder`` names the object in messages.
    """
    if wanted is None:
        return np.arange(len(names))
    wanted = list(wanted)
    known = {name: position for position, name in enumerate(names)}
    repeated = set(names[names.duplicated()])
    for name in wanted:
        if name not in known:
            raise KeyError(f"{holder} has no feature {name!r}. {close_matches(name, names)}")
        if name in repeated:
            raise ValueError(
                f"{holder} has several features named {name!r}. Run: var_names_make_unique()"
            )
    return np.array([known[name] for name in wanted], dtype=np.int64)


def selected_cells(model: BaseModelClass, adata: Any, indices: Any) -> Any:
    """Return the positions of the cells that a user selects in an object, or in the model's own."""
    data = model.adata if adata is None else adata
    # the getter itself refuses an object of another kind
    is_object = isinstance(data, AnnData | MuData)
    return cells_named(data.obs_names, indices, "indices") if is_object else indices
