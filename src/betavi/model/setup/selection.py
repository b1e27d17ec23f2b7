"""Cells and features as a user names them."""

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


def features_named(names: pd.Index, wanted: Sequence[str] | None, called: str) -> np.ndarray:
    """Return the positions of some features, of all if None.

    Parameters
    ----------
    names
        Of all features.
    wanted
        Of some.
    called
        What holds them.

    Raises
    ------
    KeyError
        If one does not exist.
    TypeError
        If a single name was given.
    ValueError
        If several features have a name.
    """
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
    """Return arguments in which cells are positions, whether they were those, a mask or names.

    Genes are checked too: scvi-tools leaves out unknown ones without a word.

    Parameters
    ----------
    model
        The model, whose own object is meant where none is given.
    given
        Arguments of a getter, by name.

    Raises
    ------
    KeyError, IndexError, ValueError
        If there is no such cell or gene, or none.
    TypeError
        If genes are one name and no list.
    """
    found: dict[str, Any] = {}
    data = given.get("adata")
    data = model.adata if data is None else data
    # an object of another kind, and an assay's genes, are refused by the function that reads them
    if isinstance(data, AnnData) and given.get("gene_list") is not None:
        found["gene_list"] = _genes(given["gene_list"], data.var_names)
    if isinstance(data, AnnData | MuData) and given.get("indices") is not None:
        found["indices"] = cells_named(data.obs_names, given["indices"], "indices")
    return found


def _genes(genes: Any, names: pd.Index) -> list[Any]:
    if isinstance(genes, str):
        raise TypeError(f"gene_list is a list of names: [{genes!r}].")
    wanted, known = list(genes), set(names)
    if unknown := [gene for gene in wanted if gene not in known]:
        raise KeyError(f"There is no gene {unknown[0]!r}. {close_matches(unknown[0], names)}")
    return wanted
