"""What is wrong with counts, said before anything is done with them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from mudata import MuData
from scipy import sparse

from betavi._tables import close_matches
from betavi.model.messages import name_some, warn
from betavi.train import Rows

if TYPE_CHECKING:
    from collections.abc import Iterable

    from anndata import AnnData


def check_is_anndata(adata: Any) -> None:
    """Refuse a MuData, saying how to get at one modality."""
    if isinstance(adata, MuData):
        raise TypeError(
            f"BetaVI models one modality, and this is a MuData of {name_some(list(adata.mod))}. "
            f"Pass one of them, for instance mdata[{next(iter(adata.mod), None)!r}]."
        )


def check_counts(adata: AnnData, layer: str | None, *, empty: bool, warn_genes: bool) -> None:
    """Check the counts of an object, naming the first cell and gene at fault.

    Parameters
    ----------
    adata
        The object.
    layer
        The layer that holds the counts; ``X`` if None.
    empty
        Whether cells without counts are allowed.
    warn_genes
        Whether to warn of genes without counts.

    Raises
    ------
    KeyError
        If there is no such layer.
    ValueError
        If a value is NaN, infinite, negative or no number, or a cell has no counts.
    """
    place = "adata.X" if layer is None else f"adata.layers[{layer!r}]"
    if layer is not None and layer not in adata.layers:
        names = [name for name in adata.layers if name is not None]
        raise KeyError(f"There is no layer {layer!r}. {close_matches(layer, names)}")
    data = adata.X if layer is None else adata.layers[layer]
    if data is None:
        raise ValueError(f"{place} is empty. Name the layer with the counts, layer=...")
    rows = Rows(data)
    if not (np.issubdtype(rows.dtype, np.number) or rows.dtype == bool):
        raise ValueError(f"{place} holds {rows.dtype}, not numbers. Convert it to counts first.")
    per_cell, per_gene = _scan(rows, place, adata)
    if not empty and not per_cell.all():
        cells = np.flatnonzero(per_cell == 0)
        raise ValueError(
            f"{len(cells)} cell(s) of {place} have no counts: {name_some(adata.obs_names[cells])} "
            f"(row {name_some(cells.tolist())}). Drop them with sc.pp.filter_cells(adata, "
            "min_counts=1), or keep them with setup_anndata(..., keep_empty_cells=True)."
        )
    if warn_genes and not per_gene.all():
        genes = adata.var_names[per_gene == 0]
        warn(
            f"{len(genes)} gene(s) of {place} have no counts: {name_some(genes)}. Nothing can be "
            "learnt of them; drop them with sc.pp.filter_genes(adata, min_counts=1)."
        )


def _scan(rows: Rows, place: str, adata: AnnData) -> tuple[np.ndarray, np.ndarray]:
    """Check every value, and return which cells and which genes have any count."""
    per_cell: list[np.ndarray] = []
    per_gene = np.zeros(rows.shape[1], dtype=bool)
    fractional = None
    for start, block in rows.blocks():
        values = block.data if sparse.issparse(block) else np.asarray(block)
        for wrong, text in _faults(values):
            fault = _first(wrong, values, block, start, adata)
            if text == "not an integer":
                fractional = fractional or fault
            elif fault:
                raise ValueError(f"{place} has a value that is {text}: {fault}.")
        filled = block != 0
        per_cell.append(np.asarray(filled.sum(axis=1)).ravel() > 0)
        per_gene |= np.asarray(filled.sum(axis=0)).ravel() > 0
    if fractional:
        warn(
            f"{place} has a value that is not an integer: {fractional}. The likelihoods zinb, nb "
            "and poisson are of raw counts; normalised values go with gene_likelihood='normal'."
        )
    return np.concatenate(per_cell) if per_cell else np.zeros(0, dtype=bool), per_gene


def _faults(values: np.ndarray) -> Iterable[tuple[np.ndarray, str]]:
    if np.issubdtype(values.dtype, np.floating):
        yield ~np.isfinite(values), "NaN or infinite"
    if not (np.issubdtype(values.dtype, np.unsignedinteger) or values.dtype == bool):
        yield values < 0, "negative"
    if np.issubdtype(values.dtype, np.floating):
        yield values != np.floor(values), "not an integer"


def _first(
    wrong: np.ndarray, values: np.ndarray, block: Any, start: int, adata: AnnData
) -> str | None:
    if not wrong.any():
        return None
    position = int(wrong.argmax())
    if sparse.issparse(block):
        row = int(np.searchsorted(block.indptr, position, side="right")) - 1
        column = int(block.indices[position])
    else:
        row, column = divmod(position, block.shape[1])
    cell, gene = adata.obs_names[start + row], adata.var_names[column]
    return f"{values.flat[position]} in cell {cell!r} (row {start + row}), gene {gene!r}"
