"""Checks of covariates and of the names of genes, before anything else is done with them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from mudata import MuData

from betavi._tables import close_matches
from betavi.model.setup.messages import name_some, warn

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from anndata import AnnData
    from scvi._types import AnnOrMuData


def check_categories(adata: AnnData, keys: Iterable[str | None], batch_key: str | None) -> None:
    """Check that columns of ``obs`` exist and give every cell a category."""
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


def check_all_used(adata: AnnOrMuData, keys: Iterable[str | None]) -> None:
    """Check that each category of some columns of ``obs`` has a cell to learn it from."""
    for key in keys:
        column = None if key is None else _column(adata, key)
        if column is None or not isinstance(column.dtype, pd.CategoricalDtype):
            continue
        unused = column.cat.categories.difference(pd.Index(column.unique()), sort=False)
        if len(unused):
            raise ValueError(
                f"obs[{key!r}] has categories without a cell: {name_some(unused)}. The model would learn "
                f"nothing of them, and averages over all have them in. Drop them: obs[{key!r}] = "
                f"obs[{key!r}].cat.remove_unused_categories()."
            )


def warn_repeated_genes(genes: pd.Index) -> None:
    """Warn if genes share a name, which then selects none of them."""
    if repeated := genes[genes.duplicated()].unique().tolist():
        warn(
            f"{len(repeated)} name(s) are of several genes: {name_some(repeated)}. Give each its own "
            "before you ask for genes by name: adata.var_names_make_unique()."
        )


def check_values(adata: AnnData, keys: Iterable[str], *, positive: bool) -> None:
    """Check that columns of ``obs`` exist and hold finite numbers, and positive ones if required."""
    for key in keys:
        column = _column(adata, key)
        if not pd.api.types.is_numeric_dtype(column):
            raise ValueError(
                f"adata.obs[{key!r}] holds {column.dtype}, not numbers. Convert it, or register it "
                "as a categorical covariate."
            )
        values = column.to_numpy(dtype=float)
        wrong = ~np.isfinite(values) | (positive & ~(values > 0))
        if wrong.any():
            cells = adata.obs_names[wrong]
            kind = "finite and positive" if positive else "finite"
            raise ValueError(
                f"adata.obs[{key!r}] is not {kind} in cell(s) {name_some(cells)}. Fill in their "
                "values or drop them."
            )


def _no_column(adata: AnnOrMuData, key: str) -> str:
    """Return a message that there is no such column; for a MuData, it names the modalities with one."""
    is_joint = isinstance(adata, MuData)
    if is_joint and (holders := [name for name, part in adata.mod.items() if key in part.obs]):
        return (
            f"There is no column {key!r} in mdata.obs, but in that of {name_some(holders)}: "
            f"bring it there, where cells of all modalities are: for name in {holders}: "
            f"mdata.obs.loc[mdata[name].obs_names, {key!r}] = mdata[name].obs[{key!r}].astype(str)"
        )
    holder = "mdata" if is_joint else "adata"
    return f"There is no column {key!r} in {holder}.obs. {close_matches(key, adata.obs)}"


def _column(adata: AnnData, key: str) -> pd.Series:
    if not isinstance(key, str):
        raise TypeError(f"{key!r} is a {type(key).__name__}, not the name of one column of obs.")
    if key not in adata.obs:
        raise KeyError(_no_column(adata, key))
    return adata.obs[key]


def check_known(adata: AnnData, key: str, known: Sequence[Any] | np.ndarray, mapping: str) -> None:
    """Check a column of ``obs`` for categories unknown to a model; ``mapping`` is the remedy."""
    column = _column(adata, key)
    if unknown := column[~column.isin(list(known))].unique().tolist():
        raise ValueError(
            f"adata.obs[{key!r}] has categories that the model has not seen: "
            f"{name_some(unknown)}; it knows {name_some(list(known))}. To map cells of a new batch "
            f"onto the model, use {mapping} and train it briefly."
        )


def check_genes(
    adata: AnnData,
    genes: np.ndarray,
    words: str = "The object's {} genes",
    remedy: str = "BetaVI.prepare_query_anndata(adata, model)",
) -> None:
    """Check that an object has a model's genes, in the model's order.

    ``words`` are the start of the message, with ``{}`` for the number of genes of the object.
    """
    names = adata.var_names.to_numpy()
    if len(names) == len(genes) and (names == genes).all():
        return
    missing = pd.Index(genes).difference(adata.var_names, sort=False)
    lack = f"{len(missing)} are missing: {name_some(missing)}" if len(missing) else "order differs"
    raise ValueError(
        f"{words.format(len(names))} are not the {len(genes)} that the model was trained on; "
        f"{lack}. Use {remedy} to sort and complete them."
    )
