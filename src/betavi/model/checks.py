"""What is wrong with an object, said before anything is done with it."""

from __future__ import annotations

import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from mudata import MuData
from scipy import sparse
from scvi import settings

from betavi._tables import close_matches
from betavi.train import Rows

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from anndata import AnnData

N_NAMED = 5
"""How many cells or genes a message names before it counts the rest."""


def warn(message: str) -> None:
    """Warn the user, pointing at the user's own line."""
    warnings.warn(message, UserWarning, stacklevel=settings.warnings_stacklevel)


def name_some(names: Sequence[Any] | pd.Index) -> str:
    """Name the first few, and count the others."""
    shown = ", ".join(repr(name) for name in names[:N_NAMED])
    more = len(names) - N_NAMED
    return f"{shown} and {more} more" if more > 0 else shown


@contextmanager
def untouched_on_failure(adata: AnnData) -> Iterator[None]:
    """Give ``adata`` its obs, obsm and uns back if what happens inside fails.

    scvi-tools registers fields one after the other, each writing its codes into the object.
    """
    obs = adata.obs.copy(deep=False)
    obsm, uns = dict(adata.obsm), dict(adata.uns)
    try:
        yield
    except BaseException:
        adata.obs = obs
        for mapping, before in ((adata.obsm, obsm), (adata.uns, uns)):
            for key in set(mapping) - set(before):
                del mapping[key]
            mapping.update(before)
        raise


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


def check_categories(adata: AnnData, keys: Iterable[str | None], batch_key: str | None) -> None:
    """Check that columns of ``obs`` exist and give every cell a category.

    Raises
    ------
    KeyError
        If a column is missing.
    ValueError
        If a cell has no category.
    """
    for key in keys:
        if key is None:
            continue
        column = _column(adata, key)
        missing = adata.obs_names[column.isna().to_numpy()]
        if len(missing):
            raise ValueError(
                f"adata.obs[{key!r}] says nothing of {len(missing)} cell(s): {name_some(missing)}. "
                "Give them a category or drop them."
            )
    if batch_key is not None:
        sizes = adata.obs[batch_key].value_counts()
        if lonely := sizes.index[sizes == 1].tolist():
            warn(
                f"A batch of adata.obs[{batch_key!r}] has one cell: {name_some(lonely)}. Its "
                "effect cannot be told from the cell's own state; merge or drop such batches."
            )


def check_values(adata: AnnData, keys: Iterable[str], *, positive: bool) -> None:
    """Check that columns of ``obs`` exist and hold finite, where asked positive, numbers.

    Raises
    ------
    KeyError
        If a column is missing.
    ValueError
        If a value is no number, not finite, or not positive.
    """
    for key in keys:
        column = _column(adata, key)
        if not pd.api.types.is_numeric_dtype(column):
            raise ValueError(f"adata.obs[{key!r}] holds {column.dtype}, not numbers.")
        values = column.to_numpy(dtype=float)
        wrong = ~np.isfinite(values) | (positive & ~(values > 0))
        if wrong.any():
            cells = adata.obs_names[wrong]
            kind = "finite and positive" if positive else "finite"
            raise ValueError(f"adata.obs[{key!r}] is not {kind} in cell(s) {name_some(cells)}.")


def _column(adata: AnnData, key: str) -> pd.Series:
    if key not in adata.obs:
        raise KeyError(f"There is no column {key!r} in adata.obs. {close_matches(key, adata.obs)}")
    column: pd.Series = adata.obs[key]
    return column


def check_known(adata: AnnData, key: str, known: Sequence[Any] | np.ndarray) -> None:
    """Check that a column of ``obs`` has no category that a model has not seen.

    Raises
    ------
    ValueError
        If it has one.
    """
    column = _column(adata, key)
    unknown = column[~column.isin(list(known))].unique().tolist()
    if unknown:
        raise ValueError(
            f"adata.obs[{key!r}] has categories that the model has not seen: "
            f"{name_some(unknown)}; it knows {name_some(list(known))}. To map cells of a new batch "
            "onto the model, use BetaVI.load_query_data(adata, model) and train it briefly."
        )


def check_genes(adata: AnnData, genes: np.ndarray) -> None:
    """Check that an object has a model's genes, in the model's order.

    Raises
    ------
    ValueError
        If it has others, or another order.
    """
    names = adata.var_names.to_numpy()
    if len(names) == len(genes) and (names == genes).all():
        return
    missing = pd.Index(genes).difference(adata.var_names, sort=False)
    lack = f"{len(missing)} are missing: {name_some(missing)}" if len(missing) else "order differs"
    raise ValueError(
        f"The object's {len(names)} genes are not the {len(genes)} that the model was trained on; "
        f"{lack}. Use BetaVI.prepare_query_anndata(adata, model) to sort and complete them."
    )
