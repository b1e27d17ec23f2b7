"""What a user asks of a model, checked before it is answered."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from anndata import AnnData
from mudata import MuData

from betavi._tables import close_matches, lookup
from betavi.model.cells import cells_named
from betavi.model.messages import name_some

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

MODES: dict[str, str] = {
    "vanilla": "which group is the higher",
    "change": "whether they differ by more than delta",
}
"""What a differential test asks, by the user's word."""


def read(model: Any, asked: dict[str, Any]) -> dict[str, Any]:
    """Return arguments in which cells are numbers, whether they were those, a mask or names.

    Genes are checked, of which scvi-tools leaves out those that it does not know without a word.

    Parameters
    ----------
    model
        Whose own object is meant where none is given.
    asked
        Arguments of a getter by name.

    Raises
    ------
    KeyError, IndexError, ValueError
        If there is no such cell or gene, or none.
    TypeError
        If genes are one name and no list.
    """
    data = asked.get("adata", asked.get("mdata"))
    data = model.adata if data is None else data
    # an object of another kind, and an assay's genes, are refused by who reads them
    if isinstance(data, AnnData) and asked.get("gene_list") is not None:
        asked = asked | {"gene_list": _genes(asked["gene_list"], data.var_names)}
    if isinstance(data, AnnData | MuData) and asked.get("indices") is not None:
        asked = asked | {"indices": cells_named(data.obs_names, asked["indices"], "indices")}
    return asked


def check_groups(
    obs: pd.DataFrame,
    groupby: str | None,
    groups: tuple[Sequence[str] | str | None, str | None],
    given: tuple[Any, Any],
    mode: str,
) -> list[Any]:
    """Refuse groups that are not there, before scvi-tools adds a column to the object.

    Parameters
    ----------
    obs
        Of the cells.
    groupby, groups
        Column, and the groups that are compared, each with all others if None.
    given
        Cells that are given in the place of groups.
    mode
        The test.

    Returns
    -------
    The groups that are compared; none if cells are given.

    Raises
    ------
    KeyError
        If there is no such column or group.
    ValueError
        If nothing is to be compared, or the test is unknown.
    """
    lookup(MODES, mode, "mode")
    if given[0] is not None:
        return []
    if given[1] is not None:
        raise ValueError("idx2= are the cells that others are compared with: which, idx1=?")
    if groupby is None:
        raise ValueError("Say what to compare: groupby=, or idx1=.")
    if groupby not in obs:
        raise KeyError(f"There is no obs[{groupby!r}]. {close_matches(groupby, obs.columns)}")
    known = obs[groupby].dropna().unique().tolist()
    one, two = groups
    chosen = [] if one is None else [one] if np.ndim(one) == 0 else list(one)
    asked = [*(chosen or known), *([] if two is None else [two])]
    for group in asked:
        if group not in known:
            raise KeyError(f"obs[{groupby!r}] has no group {group!r}; it has {name_some(known)}.")
    if len(known) == 1:
        raise ValueError(f"obs[{groupby!r}] has the group {known[0]!r} only: there are no others.")
    return asked


def _genes(genes: Any, names: pd.Index) -> list[Any]:
    if isinstance(genes, str):
        raise TypeError(f"gene_list is a list of names: [{genes!r}].")
    wanted, known = list(genes), set(names)
    if unknown := [gene for gene in wanted if gene not in known]:
        raise KeyError(f"There is no gene {unknown[0]!r}. {close_matches(unknown[0], names)}")
    return wanted
