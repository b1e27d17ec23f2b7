"""What a user asks of a model, checked before it is answered."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from anndata import AnnData
from mudata import MuData

from betavi._tables import close_matches
from betavi.model.setup.selection import cells_named

if TYPE_CHECKING:
    import pandas as pd


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


def _genes(genes: Any, names: pd.Index) -> list[Any]:
    if isinstance(genes, str):
        raise TypeError(f"gene_list is a list of names: [{genes!r}].")
    wanted, known = list(genes), set(names)
    if unknown := [gene for gene in wanted if gene not in known]:
        raise KeyError(f"There is no gene {unknown[0]!r}. {close_matches(unknown[0], names)}")
    return wanted
