"""Checks of covariates and gene names before registration."""

from __future__ import annotations

from collections.abc import Iterable
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from mudata import MuData

from betavi._tables import close_matches
from betavi.model.setup.messages import name_some, warn

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from scvi._types import AnnOrMuData


LARGEST_VALUE = 1e12
"""Largest value that the networks are given. Far larger values overflow in single precision."""


def listed_columns(columns: Iterable[str] | None, argument: str) -> list[str] | None:
    """Return columns of ``obs`` as a list, from any iterable. Raise a TypeError for a string."""
    if isinstance(columns, str):
        raise TypeError(f"`{argument}` must be a list of columns: [{columns!r}], not {columns!r}")
    if columns is not None and not isinstance(columns, Iterable):
        raise TypeError(f"`{argument}` must be a list of columns, not {columns!r}.")
    listed = None if columns is None else list(columns)
    if listed is not None and len(set(map(str, listed))) < len(listed):
        raise ValueError(f"`{argument}` names a column twice: {listed}")
    return listed


def check_categories(adata: AnnData, keys: Iterable[str | None], batch_key: str | None) -> None:
    """Check that columns of ``obs`` exist and give every cell a category."""
    for key in keys:
        if key is None:
            continue
        column = obs_column(adata, key)
        _check_kind(column, key)
        missing = adata.obs_names[column.isna().to_numpy()]
        if len(missing):
            raise ValueError(
                f"adata.obs[{key!r}] has no value for {len(missing)} cell(s): "
                f"{name_some(missing)}. Assign a category, or drop the cells."
            )
    if batch_key is not None:
        sizes = adata.obs[batch_key].value_counts()
        if lonely := sizes.index[sizes == 1].tolist():
            warn(
                f"adata.obs[{batch_key!r}] has batches with one cell: {name_some(lonely)}. The "
                "effect of such a batch cannot be separated from the state of its cell. Merge "
                "these batches with others, or drop their cells."
            )


def _check_kind(column: pd.Series, key: str) -> None:
    """Raise a ValueError for categories that cannot be sorted, or that a file cannot store."""
    values = column.dropna().unique()
    kinds = {"text" if isinstance(value, str) else type(value).__name__ for value in values}
    categories = column.dtype.categories if hasattr(column.dtype, "categories") else column
    # in a file, columns of objects are text
    numbers = categories.dtype != object and all(
        isinstance(value, bool | np.bool_ | Integral | Real) for value in values
    )
    if len(values) and kinds != {"text"} and not numbers:
        raise ValueError(
            f"obs[{key!r}] has categories of the type(s) {', '.join(sorted(kinds))}, but categories "
            "must be all text, or all numbers in a column of numbers, so that they can be sorted "
            f"and saved. Convert the column: obs[{key!r}] = obs[{key!r}].astype(str)"
        )


def check_all_used(adata: AnnOrMuData, keys: Iterable[str | None]) -> None:
    """Check that every category of some columns of ``obs`` has cells."""
    for key in keys:
        column = None if key is None else obs_column(adata, key)
        if column is None or not isinstance(column.dtype, pd.CategoricalDtype):
            continue
        unused = column.cat.categories.difference(pd.Index(column.unique()), sort=False)
        if len(unused):
            raise ValueError(
                f"obs[{key!r}] has categories without cells: {name_some(unused)}. The model cannot "
                "learn such categories, but averages over categories would include them. Remove "
                f"the categories: obs[{key!r}] = obs[{key!r}].cat.remove_unused_categories()"
            )


def warn_repeated_genes(genes: pd.Index) -> None:
    """Warn if genes share a name, because a repeated name selects no gene."""
    if repeated := genes[genes.duplicated()].unique().tolist():
        warn(
            f"{len(repeated)} gene name(s) are repeated: {name_some(repeated)}. Genes cannot be "
            "selected by a repeated name. Make names unique: adata.var_names_make_unique()"
        )


def check_values(adata: AnnData, keys: Iterable[str], *, positive: bool) -> None:
    """Check that columns of ``obs`` exist and hold finite or, if required, positive numbers."""
    for key in keys:
        column = obs_column(adata, key)
        if not pd.api.types.is_numeric_dtype(column):
            raise ValueError(
                f"adata.obs[{key!r}] has dtype {column.dtype}, not numbers. Convert the column to "
                "numbers, or register it as a categorical covariate."
            )
        values = column.to_numpy(dtype=float)
        size = np.abs(values)
        is_extreme = (size > LARGEST_VALUE) | (positive & (size > 0) & (size < 1 / LARGEST_VALUE))
        wrong = ~np.isfinite(values) | (positive & ~(values > 0)) | is_extreme
        if wrong.any():
            cells = adata.obs_names[wrong]
            if is_extreme[wrong].all() and np.isfinite(values).all():
                raise ValueError(
                    f"adata.obs[{key!r}] has values such as {values[wrong][0]:g}, in cell(s) "
                    f"{name_some(cells)}. The networks compute in single precision. Scale the "
                    f"column so that its values are between {1 / LARGEST_VALUE:g} and "
                    f"{LARGEST_VALUE:g}."
                )
            kind = "finite and positive" if positive else "finite"
            raise ValueError(
                f"adata.obs[{key!r}] is not {kind} in cell(s) {name_some(cells)}. Correct these "
                "values, or drop the cells."
            )


def check_not_repeated(obs: pd.DataFrame, key: str) -> None:
    """Raise a ValueError if a table has several columns of this name."""
    if list(obs.columns).count(key) > 1:
        raise ValueError(
            f"obs has several columns {key!r}. Rename or drop all but one of these columns."
        )


def obs_column(adata: AnnOrMuData, key: str) -> pd.Series:
    """Return a column of ``obs``. Raises a TypeError if ``key`` is not a name, else a KeyError."""
    if not isinstance(key, str):
        raise TypeError(f"{key!r} is a {type(key).__name__}, not the name of one column of `obs`.")
    if key in adata.obs:
        check_not_repeated(adata.obs, key)
        return adata.obs[key]
    is_joint = isinstance(adata, MuData)
    if is_joint and (holders := [name for name, part in adata.mod.items() if key in part.obs]):
        raise KeyError(
            f"mdata.obs has no column {key!r}, but obs of these modalities has this column: "
            f"{name_some(holders)}. To copy the column to mdata.obs, which has the cells of all "
            f"modalities, run: for name in {holders}: mdata.obs.loc[mdata[name].obs_names, "
            f"{key!r}] = mdata[name].obs[{key!r}].astype(str)"
        )
    name = "mdata" if is_joint else "adata"
    raise KeyError(f"{name}.obs has no column {key!r}. {close_matches(key, adata.obs)}")


def labels_column(adata: AnnOrMuData, labels_key: Any, holder: str) -> pd.Series:
    """Return a column of labels, or raise an error. ``holder`` names the object in messages."""
    if not isinstance(labels_key, str) or labels_key not in adata.obs:
        pull = (
            " Or, copy a modality's columns: mdata.pull_obs()" if isinstance(adata, MuData) else ""
        )
        raise KeyError(
            f"{holder} has no column obs[{labels_key!r}], given as `labels_key`. "
            f"{close_matches(labels_key, adata.obs.columns)}{pull}"
        )
    labels = adata.obs[labels_key]
    if pd.api.types.is_float_dtype(labels) and not (labels.dropna() % 1 == 0).all():
        raise TypeError(
            f"obs[{labels_key!r}], given as `labels_key`, has fractions, not labels. Name a column of "
            "categories."
        )
    return labels


def check_known(adata: AnnData, key: str, known: Sequence[Any] | np.ndarray, mapping: str) -> None:
    """Check a column of ``obs`` for unknown categories.

    ``mapping`` is the code that adds categories.
    """
    column = obs_column(adata, key)
    if unknown := column[~column.isin(list(known))].unique().tolist():
        raise ValueError(
            f"adata.obs[{key!r}] has categories that the model was not trained on: "
            f"{name_some(unknown)}. Known categories: {name_some(list(known))}. To map cells of a "
            f"new batch, use {mapping} and train briefly."
        )


def check_genes(
    adata: AnnData,
    genes: np.ndarray,
    subject: str = "The object's {} genes",
    remedy: str = "BetaVI.prepare_query_anndata(adata, model)",
) -> None:
    """Check that an object has a model's genes, in the model's order.

    ``subject`` starts the message, with ``{}`` in place of the object's number of genes.
    """
    names = adata.var_names.to_numpy()
    if len(names) == len(genes) and (names == genes).all():
        return
    missing = pd.Index(genes).difference(adata.var_names, sort=False)
    fault = f"{len(missing)} are missing: {name_some(missing)}"
    fault = fault if len(missing) else "None is missing, but some are new, or the order differs"
    raise ValueError(
        f"{subject.format(len(names))} are not the {len(genes)} that the model was trained on. "
        f"{fault}. Use {remedy} to reorder the genes and to add missing genes."
    )
