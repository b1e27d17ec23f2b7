"""Positions of cells and features, from a user's selection."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from anndata import AnnData
from mudata import MuData

from betavi._tables import close_matches

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from scvi.model.base import BaseModelClass


def cells_named(names: pd.Index, wanted: Any, word: str) -> np.ndarray:
    """Return the positions of cells given by names, positions, a slice or a mask.

    ``word`` is the argument, for messages. Raises a KeyError for an unknown name, an IndexError for
    a position or a mask beyond the last cell, and a ValueError for an empty selection.
    """
    if isinstance(wanted, str):
        wanted = [wanted]
    if isinstance(wanted, slice):
        wanted = np.arange(len(names))[wanted]
    chosen = np.atleast_1d(np.asarray(wanted))
    if chosen.dtype == bool:
        if len(chosen) != len(names):
            raise IndexError(
                f"{word} is a mask of {len(chosen)} cells, and there are {len(names)}."
            )
        chosen = np.flatnonzero(chosen)
    elif chosen.dtype.kind in "OUS" and chosen.size:
        found = names.get_indexer_for(pd.Index(chosen))
        if (found < 0).any():
            name = chosen[np.flatnonzero(found < 0)[0]]
            raise KeyError(
                f"{word}: there is no cell {str(name)!r}. Cells of a type are named by a mask: "
                f"adata.obs['cell_type'] == 'B'. {close_matches(name, names)}"
            )
        chosen = found
    if not chosen.size:
        raise ValueError(f"{word} names no cell.")
    if chosen.dtype.kind not in "iu":
        raise ValueError(f"{word} are names, whole numbers or a mask, not {chosen.dtype}.")
    outside = (chosen < -len(names)) | (chosen >= len(names))
    if outside.any():
        raise IndexError(f"{word}: there is no cell {chosen[outside][0]} of {len(names)}.")
    return np.arange(len(names))[chosen]


def features_named(names: pd.Index, wanted: Sequence[str] | None, called: str) -> np.ndarray:
    """Return the positions of some features, or of all; ``called`` is their holder, for messages."""
    if wanted is None:
        return np.arange(len(names))
    if isinstance(wanted, str):
        raise TypeError(f"gene_list is a list of names: [{wanted!r}].")
    known = {name: position for position, name in enumerate(names)}
    repeated = set(names[names.duplicated()])
    for name in wanted:
        if name not in known:
            raise KeyError(f"{called} has no feature {name!r}. {close_matches(name, names)}")
        if name in repeated:
            raise ValueError(f"{called} has several features {name!r}: var_names_make_unique().")
    return np.array([known[name] for name in wanted], dtype=np.int64)


def read_selection(model: BaseModelClass, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the argument of a getter that selects cells, as positions."""
    data = model.adata if given.get("adata") is None else given["adata"]
    # the getter itself refuses an object of another kind
    if isinstance(data, AnnData | MuData) and given.get("indices") is not None:
        return {"indices": cells_named(data.obs_names, given["indices"], "indices")}
    return {}
