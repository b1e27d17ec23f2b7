"""Checks of counts before registration."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from anndata import AnnData
from mudata import MuData
from scipy import sparse
from scvi.data._utils import _get_adata_minify_type

from betavi._tables import close_matches
from betavi.data import MOVED_COUNTS, Rows, counts_layer, counts_of
from betavi.model.setup.arguments import check_arguments
from betavi.model.setup.check_obs import LARGEST_VALUE
from betavi.model.setup.messages import name_some, warn

if TYPE_CHECKING:
    from collections.abc import Callable


def check_is_anndata(adata: Any) -> None:
    """Raise a TypeError unless ``adata`` is an AnnData."""
    if isinstance(adata, MuData):
        raise TypeError(
            "BetaVI models one modality, but `adata` is a MuData with several "
            f"({name_some(list(adata.mod))}). Use JointVI. Or, pass one modality, e.g. "
            f"mdata[{next(iter(adata.mod), None)!r}]"
        )
    # scvi-tools' CollectionAdapter only claims to be an AnnData
    if not issubclass(type(adata), AnnData):
        raise TypeError(
            f"`adata` must be an AnnData, not {type(adata).__name__}. Read a file with "
            "anndata.read_h5ad, or several files with betavi.data.read_lazy. Or, wrap a matrix in "
            "anndata.AnnData."
        )
    check_obs_in_memory(adata)


def check_obs_in_memory(adata: AnnData) -> None:
    """Raise a TypeError if ``obs`` is not a data frame, as in a lazily read object."""
    if not isinstance(adata.obs, pd.DataFrame):
        raise TypeError(
            f"adata.obs is a {type(adata.obs).__name__}, not a data frame in memory. X can stay in the "
            "file, but run first: adata.obs = adata.obs.to_memory(); "
            "adata.var = adata.var.to_memory()"
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
) -> np.ndarray:
    """Check the counts of an object, and return the total of each cell, ``(n_cells,)``.

    Messages name the first invalid cell and gene.

    ``name`` is the object's name in messages. The three ``warn_`` arguments are functions that
    receive a message. Each is :func:`refuse`, which raises an error;
    :func:`~betavi.model.setup.messages.warn`; or None, which skips the message.
    ``warn_empty_cells``: for cells without counts. ``warn_all_zero_genes``: for genes without
    counts. ``warn_fractions``: for values that are not whole numbers.
    """
    check_arguments({"layer": layer})
    if layer is None and counts_layer(adata, None) is not None:
        _warn_if_counts_are_back(adata, name)
    layer = counts_layer(adata, layer)
    if layer is not None and layer not in adata.layers:
        names = [known for known in adata.layers if known is not None]
        raise KeyError(f"{name} has no layer {layer!r}. {close_matches(layer, names)}")
    location = f"{name}.X" if layer is None else f"{name}.layers[{layer!r}]"
    data = counts_of(adata, layer)
    if data is None:
        raise ValueError(f"{location} is empty. Pass the layer with the counts: layer=...")
    try:
        rows = Rows(data)
    except TypeError as error:
        raise TypeError(f"{location}: {error}") from None
    kinds = (np.integer, np.floating, np.bool_)
    if not any(np.issubdtype(rows.dtype, kind) for kind in kinds):
        raise ValueError(f"{location} has dtype {rows.dtype}, not numbers. Convert it to numbers.")
    if 0 in rows.shape:
        n_cells, n_genes = rows.shape
        raise ValueError(f"{location} is empty: it has {n_cells} cells and {n_genes} genes.")
    cell_totals, per_gene = _scan(rows, location, adata, warn_fractions)
    if warn_empty_cells is not None and not cell_totals.all():
        cells = np.flatnonzero(cell_totals == 0)
        warn_empty_cells(
            f"{len(cells)} cell(s) of {location} have no counts: "
            f"{name_some(adata.obs_names[cells])} (row {name_some(cells.tolist())}). Set "
            f"keep_empty_cells=True. Or, run: sc.pp.filter_cells({name}, min_counts=1)"
        )
    if warn_all_zero_genes is not None and not per_gene.all():
        genes = adata.var_names[~per_gene]
        warn_all_zero_genes(
            f"{len(genes)} gene(s) of {location} have no counts: {name_some(genes)}. The model "
            f"learns nothing about these genes. Remove the genes: sc.pp.filter_genes({name}, "
            "min_counts=1)"
        )
    return cell_totals


def _warn_if_counts_are_back(adata: AnnData, name: str) -> None:
    """Warn if X was denoised, and holds whole numbers again."""
    is_minified = _get_adata_minify_type(adata) is not None
    if not is_minified and adata.X is not None and holds_whole_numbers(adata.X):
        warn(
            f"denoise() moved the counts from {name}.X to layers[{counts_layer(adata, None)!r}], "
            f"and the model reads this layer. But {name}.X holds whole numbers again. To read "
            f"{name}.X, run: del {name}.uns['betavi'][{MOVED_COUNTS!r}]"
        )


def holds_whole_numbers(data: Any) -> bool:
    """Return True if all values of a matrix are whole numbers."""
    blocks = (block for _, block in Rows(data).blocks())
    values = (block.data if sparse.issparse(block) else np.asarray(block) for block in blocks)
    return all(bool((value == np.floor(value)).all()) for value in values)


_NOT_FINITE, _NEGATIVE, _FRACTION = "NaN or infinite", "negative", "not an integer"
_TOO_LARGE = "too large"
_REMEDIES = {
    _NOT_FINITE: "Pass the layer with raw counts (layer=...), or remove the cell.",
    _TOO_LARGE: f"Counts are at most {LARGEST_VALUE:g}. Pass the layer with raw counts (layer=...), "
    "or remove the cell.",
    _NEGATIVE: "Scaled or centred values are not counts. Pass the layer with raw counts (layer=...).",
    _FRACTION: "The likelihoods zinb, nb and poisson need raw counts (layer=...). For normalised "
    "values, use the likelihood 'normal'.",
}


def _scan(
    rows: Rows, location: str, adata: AnnData, warn_fractions: Callable[[str], None] | None
) -> tuple[np.ndarray, np.ndarray]:
    """Check every value. Return the totals of cells, and a mask of the genes that have counts."""
    totals: list[np.ndarray] = []
    per_gene = np.zeros(rows.shape[1], dtype=bool)
    reported: set[str] = set()
    for start, block in rows.blocks():
        values = block.data if sparse.issparse(block) else np.asarray(block)
        for fault, wrong in _faults(values).items():
            report = warn_fractions if fault == _FRACTION else refuse
            if report is not None and fault not in reported and wrong.any():
                reported.add(fault)
                where = _describe(int(wrong.argmax()), values, block, start, adata)
                # anndata.concat of denoised objects leads here, unless uns_merge="same"
                hint = " This object has a layer 'counts'." if "counts" in adata.layers else ""
                report(f"{location} has a value that is {fault}: {where}. {_REMEDIES[fault]}{hint}")
        totals.append(np.asarray(block.sum(axis=1, dtype=np.float64)).ravel())
        per_gene |= np.asarray((block != 0).sum(axis=0)).ravel() > 0
    return np.concatenate(totals), per_gene


def _faults(values: np.ndarray) -> dict[str, np.ndarray]:
    faults = {}
    if is_floating := np.issubdtype(values.dtype, np.floating):
        faults[_NOT_FINITE] = ~np.isfinite(values)
    if is_floating or values.dtype.itemsize > 4:
        faults[_TOO_LARGE] = values > LARGEST_VALUE
    if is_floating or np.issubdtype(values.dtype, np.signedinteger):
        faults[_NEGATIVE] = values < 0
    if is_floating:
        faults[_FRACTION] = values != np.floor(values)
    return faults


def _describe(position: int, values: np.ndarray, block: Any, start: int, adata: AnnData) -> str:
    if sparse.issparse(block):
        row = int(np.searchsorted(block.indptr, position, side="right")) - 1
        column = int(block.indices[position])
    else:
        row, column = divmod(position, block.shape[1])
    cell, gene = adata.obs_names[start + row], adata.var_names[column]
    return f"{values.flat[position]} in cell {cell!r} (row {start + row}), gene {gene!r}"
