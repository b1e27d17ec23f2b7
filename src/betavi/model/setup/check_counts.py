"""Checks of counts, before anything else is done with them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from anndata import AnnData
from mudata import MuData
from scipy import sparse
from scvi.data._utils import _get_adata_minify_type

from betavi._tables import close_matches
from betavi.data import MOVED_COUNTS, Rows, counts_layer, counts_of
from betavi.model.setup.messages import name_some, warn

if TYPE_CHECKING:
    from collections.abc import Callable


def check_is_anndata(adata: Any) -> None:
    """Raise a TypeError unless it is an AnnData; for a MuData, say how to get one modality."""
    if isinstance(adata, MuData):
        raise TypeError(
            f"BetaVI models one modality, and this is a MuData of {name_some(list(adata.mod))}. "
            f"Pass one of them, for instance mdata[{next(iter(adata.mod), None)!r}]."
        )
    if not isinstance(adata, AnnData):
        raise TypeError(
            f"BetaVI takes an AnnData, not a {type(adata).__name__}. Read a file with "
            "anndata.read_h5ad, and wrap a matrix in anndata.AnnData."
        )


def refuse(message: str) -> None:
    """Raise a ValueError."""
    raise ValueError(message)


def check_counts(
    adata: AnnData,
    layer: str | None,
    warn_empty_cells: Callable[[str], None] | None,
    warn_all_zero_genes: Callable[[str], None] | None,
    name: str = "adata",
    warn_fractions: Callable[[str], None] | None = warn,
) -> None:
    """Check the counts of an object, naming the first cell and gene at fault.

    The last four arguments name the object in messages, and receive messages about cells or genes
    without counts and about fractions: :func:`refuse`, :func:`~betavi.model.setup.messages.warn`,
    or None to ignore them.
    """
    if layer is None and counts_layer(adata, None) is not None:
        _warn_if_counts_are_back(adata, name)
    layer = counts_layer(adata, layer)
    place = f"{name}.X" if layer is None else f"{name}.layers[{layer!r}]"
    rows = Rows(_locate(adata, layer, place))
    kinds = (np.integer, np.floating, np.bool_)
    if not any(np.issubdtype(rows.dtype, kind) for kind in kinds):
        raise ValueError(f"{place} holds {rows.dtype}, not counts. Convert it to numbers first.")
    if 0 in rows.shape:
        raise ValueError(f"{place} has {rows.shape[0]} cells and {rows.shape[1]} genes.")
    per_cell, per_gene = _scan(rows, place, adata, warn_fractions)
    if warn_empty_cells is not None and not per_cell.all():
        cells = np.flatnonzero(~per_cell)
        warn_empty_cells(
            f"{len(cells)} cell(s) of {place} have no counts: {name_some(adata.obs_names[cells])} "
            f"(row {name_some(cells.tolist())}). Drop them with sc.pp.filter_cells({name}, "
            "min_counts=1), or keep them with setup_anndata(..., keep_empty_cells=True)."
        )
    if warn_all_zero_genes is not None and not per_gene.all():
        genes = adata.var_names[~per_gene]
        warn_all_zero_genes(
            f"{len(genes)} gene(s) of {place} have no counts: {name_some(genes)}. Nothing can be "
            f"learnt of them; drop them with sc.pp.filter_genes({name}, min_counts=1)."
        )


def _warn_if_counts_are_back(adata: AnnData, name: str) -> None:
    """Warn if X was denoised, and holds whole numbers again."""
    is_minified = _get_adata_minify_type(adata) is not None
    if not is_minified and adata.X is not None and holds_whole_numbers(adata.X):
        warn(
            f"The counts of {name} are read from layers[{counts_layer(adata, None)!r}], as they were "
            f"moved there when X was denoised. X holds whole numbers again: to read those, del "
            f"{name}.uns['betavi'][{MOVED_COUNTS!r}]."
        )


def holds_whole_numbers(data: Any) -> bool:
    """Return whether a matrix has no fraction."""
    blocks = (block for _, block in Rows(data).blocks())
    values = (block.data if sparse.issparse(block) else np.asarray(block) for block in blocks)
    return all(bool((value == np.floor(value)).all()) for value in values)


def _locate(adata: AnnData, layer: str | None, place: str) -> Any:
    if layer is not None and layer not in adata.layers:
        names = [name for name in adata.layers if name is not None]
        raise KeyError(f"There is no layer {layer!r}. {close_matches(layer, names)}")
    data = counts_of(adata, layer)
    if data is None:
        raise ValueError(f"{place} is empty. Name the layer with the counts, layer=...")
    return data


class _Fault(NamedTuple):
    """A kind of wrong value, and its remedy."""

    kind: str
    remedy: str


_NOT_FINITE = _Fault(
    "NaN or infinite", "Name the layer with the raw counts, layer=..., or drop the cell."
)
_NEGATIVE = _Fault(
    "negative", "Scaled or centred values are no counts: name the layer that has them."
)
_FRACTION = _Fault(
    "not an integer",
    "The likelihoods zinb, nb and poisson are of raw counts (layer=...), normalised values go with "
    "the likelihood 'normal'.",
)


def _scan(
    rows: Rows, place: str, adata: AnnData, warn_fractions: Callable[[str], None] | None
) -> tuple[np.ndarray, np.ndarray]:
    """Check every value, and return masks of the cells and the genes with any count."""
    per_cell: list[np.ndarray] = []
    per_gene = np.zeros(rows.shape[1], dtype=bool)
    reported: set[_Fault] = set()
    for start, block in rows.blocks():
        values = block.data if sparse.issparse(block) else np.asarray(block)
        for fault, wrong in _faults(values).items():
            report = warn_fractions if fault is _FRACTION else refuse
            if report is not None and fault not in reported and wrong.any():
                reported.add(fault)
                where = _first(int(wrong.argmax()), values, block, start, adata)
                # anndata.concat of denoised objects leads here, unless uns_merge="same"
                hint = " layers['counts'] is there." if "counts" in adata.layers else ""
                report(f"{place} has a value that is {fault.kind}: {where}. {fault.remedy}{hint}")
        filled = block != 0
        per_cell.append(np.asarray(filled.sum(axis=1)).ravel() > 0)
        per_gene |= np.asarray(filled.sum(axis=0)).ravel() > 0
    return np.concatenate(per_cell), per_gene


def _faults(values: np.ndarray) -> dict[_Fault, np.ndarray]:
    if not np.issubdtype(values.dtype, np.floating):
        is_signed = np.issubdtype(values.dtype, np.signedinteger)
        return {_NEGATIVE: values < 0} if is_signed else {}
    fraction = values != np.floor(values)
    return {_NOT_FINITE: ~np.isfinite(values), _NEGATIVE: values < 0, _FRACTION: fraction}


def _first(position: int, values: np.ndarray, block: Any, start: int, adata: AnnData) -> str:
    if sparse.issparse(block):
        row = int(np.searchsorted(block.indptr, position, side="right")) - 1
        column = int(block.indices[position])
    else:
        row, column = divmod(position, block.shape[1])
    cell, gene = adata.obs_names[start + row], adata.var_names[column]
    return f"{values.flat[position]} in cell {cell!r} (row {start + row}), gene {gene!r}"
