"""Measured log fold changes of conditions, from sums of counts over their cells."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse

from betavi._tables import close_matches
from betavi.data.conditions import condition_name, split_condition
from betavi.data.doses import doses_of, joined_doses

PSEUDOCOUNT = 0.5
"""Count added to each sum, so that genes without counts have a log fold change."""


def measured_changes(
    adata: AnnData,
    perturbation_key: str,
    control: str = "control",
    *,
    separator: str = "+",
    dose_key: str | None = None,
    context_key: str | None = None,
    layer: str | None = None,
) -> AnnData:
    """Return measured log2 fold changes of conditions against the control.

    Counts are summed over the cells of a condition. The result has the names and layers of
    :meth:`betavi.EffectVI.predict`, so that measured and predicted values can be compared.

    Parameters
    ----------
    adata
        Cells by genes, with raw counts.
    perturbation_key, control, separator, dose_key, context_key, layer
        As in :meth:`betavi.EffectVI.setup_anndata`. Each context has its own control.

    Returns
    -------
    An AnnData with one row for each condition, dose and context, without the controls. ``X`` is the
    mean profile, in counts per ten thousand. Layers: ``lfc``, the log2 fold change, and
    ``lfc_error``, its standard error from the variance between cells. ``obs`` has ``perturbation``,
    ``dose`` and ``context`` if their columns are given, and ``n_cells``. Perturbations are in
    alphabetical order, without the control: cells named ``"B+A"`` or ``"A+B+control"`` are in the row
    ``"A+B"``. Doses of controls are ignored.

    Raises
    ------
    KeyError
        If a column or layer is missing.
    ValueError
        If a context has no control cells, or a condition or dose cannot be read.

    Examples
    --------
    >>> import betavi
    >>> adata = betavi.datasets.simulate_perturbations(n_cells=400, n_perturbations=3)
    >>> measured = betavi.metrics.measured_changes(adata, "perturbation")
    >>> measured.obs_names.tolist()
    ['P0', 'P1', 'P2']
    """
    keys = {"perturbation": perturbation_key, "dose": dose_key, "context": context_key}
    columns = {name: key for name, key in keys.items() if key is not None}
    for key in columns.values():
        if key not in adata.obs:
            raise KeyError(f"`adata.obs` has no column {key!r}. {close_matches(key, adata.obs)}")
    if layer is not None and layer not in adata.layers:
        raise KeyError(f"`adata` has no layer {layer!r}. {close_matches(layer, adata.layers)}")
    counts = sparse.csr_matrix(adata.X if layer is None else adata.layers[layer], dtype=np.float64)
    table = _conditions(adata.obs, columns, control, separator)
    contexts = table["context"].astype(str) if "context" in table else pd.Series("", table.index)
    is_control = (table["perturbation"] == control).to_numpy()
    controls: dict[Any, Any] = {
        context: _sums(counts[some.index.to_numpy()])
        for context, some in table[is_control].groupby(contexts[is_control])
    }
    found, rows = [], []
    for values, some in table[~is_control].groupby(list(columns), observed=True):
        context = contexts[some.index[0]]
        if context not in controls:
            where = f" in the context {context!r}" if context else ""
            raise ValueError(
                f"No cell is a control, {control!r}{where}. Pass the name of the control, or drop these cells."
            )
        found.append(_change(_sums(counts[some.index.to_numpy()]), controls[context]))
        rows.append({**dict(zip(columns, values, strict=True)), "n_cells": len(some)})
    if not rows:
        raise ValueError(f"All cells are controls, {control!r}.")
    obs = _named(pd.DataFrame(rows), separator)
    profile, lfc, error = np.stack(found, axis=1).astype(np.float32)
    layers = {"lfc": lfc, "lfc_error": error}
    return AnnData(profile, obs=obs, var=adata.var[[]].copy(), layers=layers)


def _conditions(
    obs: pd.DataFrame, columns: dict[str, str], control: str, separator: str
) -> pd.DataFrame:
    """Return the condition of each cell: its name, the doses of its perturbations, and its context."""
    table = pd.DataFrame({name: obs[key].to_numpy() for name, key in columns.items()})
    given = [name for name in ("perturbation", "dose") if name in columns]
    codes = table.groupby(given, observed=True, dropna=False, sort=False).ngroup()
    different = table.loc[~codes.duplicated(), given]
    names, doses = [], []
    for name, *dose in different.itertuples(index=False):
        # cells without a condition are left out
        parts = [] if pd.isna(name) else split_condition(str(name), control, separator)
        names.append(None if pd.isna(name) else condition_name(parts, control, separator))
        if dose and parts:
            each = doses_of(str(name), len(parts), dose[0], control, separator)
            dose = [tuple(each[place] for place in np.argsort(parts))]
        doses += dose
    table["perturbation"] = pd.Series(names)[codes].to_numpy()
    if "dose" in table:
        table["dose"] = pd.Series(doses)[codes].to_numpy()
    return table


def _named(obs: pd.DataFrame, separator: str) -> pd.DataFrame:
    """Return the table of conditions with names, and doses as numbers, or as text for combinations."""
    names = obs[[name for name in obs if name not in ("dose", "n_cells")]]
    index = names.astype(str).agg(" in ".join, axis=1)
    if "dose" in obs:
        doses = [joined_doses(each, separator) for each in obs["dose"]]
        words = [each if isinstance(each, str) else f"{each:g}" for each in doses]
        index = index + [f" at {word}" for word in words]
        # a column of one kind can be saved
        obs["dose"] = words if any(isinstance(each, str) for each in doses) else doses
    return obs.set_axis(index.to_list())


def _sums(counts: sparse.csr_matrix) -> tuple[np.ndarray, np.ndarray]:
    """Return shares of genes, ``(n_genes,)``, and standard errors of their natural logarithms."""
    totals = np.asarray(counts.sum(axis=1)).ravel()
    sums = np.asarray(counts.sum(axis=0)).ravel() + PSEUDOCOUNT
    share = sums / max(totals.sum(), 1.0)
    # residuals of a ratio of sums: x - share * total
    squares = np.asarray(counts.multiply(counts).sum(axis=0)).ravel()
    squares += share**2 * np.square(totals).sum() - 2 * share * (counts.T @ totals)
    # the counts themselves are Poisson at least
    return share, np.sqrt(np.maximum(squares, sums)) / sums


def _change(
    condition: tuple[np.ndarray, np.ndarray], control: tuple[np.ndarray, np.ndarray]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the profile, the log2 fold change, and its standard error."""
    error = np.sqrt(condition[1] ** 2 + control[1] ** 2) / np.log(2)
    return 1e4 * condition[0], np.log2(condition[0]) - np.log2(control[0]), error
