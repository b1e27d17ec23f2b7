"""Cells as a user names them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from betavi._tables import close_matches


def cells_named(names: pd.Index, wanted: Any, word: str) -> np.ndarray:
    """Return the positions of some cells.

    Parameters
    ----------
    names
        Of all cells.
    wanted
        A name or several, positions, or a mask of all cells.
    word
        The argument, for messages.

    Raises
    ------
    KeyError
        If a name is unknown.
    IndexError
        If a position is beyond the last cell, or a mask has another length.
    ValueError
        If there are none.
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
