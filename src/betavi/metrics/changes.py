"""Measured log fold changes of conditions, from sums of counts over their cells."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse

from betavi._tables import close_matches

PSEUDOCOUNT = 0.5
"""Count added to each sum, so that genes without counts have a log fold change."""


def measured_changes(
    adata: AnnData,
    perturbation_key: str,
    control: str = "control",
    *,
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
    perturbation_key, control, dose_key, context_key, layer
        As in :meth:`betavi.EffectVI.setup_anndata`. Each context has its own control.

    Returns
    -------
    An AnnData with one row for each condition, dose and context, without the controls. ``X`` is the
    mean profile, in counts per ten thousand. Layers: ``lfc``, the log2 fold change, and
    ``lfc_error``, its standard error from the variance between cells. ``obs`` has ``perturbation``,
    ``dose`` and ``context`` if their columns are given, and ``n_cells``.

    Raises
    ------
    KeyError
        If a column or layer is missing.
    ValueError
        If a context has no control cells.

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
    table = pd.DataFrame({name: adata.obs[key].to_numpy() for name, key in columns.items()})
    is_control = (table["perturbation"].astype(str) == control).to_numpy()
    contexts = table["context"].astype(str) if "context" in table else pd.Series("", table.index)
    controls: dict[Any, Any] = {
        context: _sums(counts[some.index.to_numpy()])
        for context, some in table[is_control].groupby(contexts[is_control])
    }
    found, rows = [], []
    for values, some in table[~is_control].groupby(list(columns), observed=True):
        context = contexts[some.index[0]]
        if context not in controls:
            where = f" in the context {context!r}" if context else ""
            raise ValueError(f"No cell is a control, {control!r}{where}.")
        found.append(_change(_sums(counts[some.index.to_numpy()]), controls[context]))
        rows.append({**dict(zip(columns, values, strict=True)), "n_cells": len(some)})
    if not rows:
        raise ValueError(f"All cells are controls, {control!r}.")
    obs = pd.DataFrame(rows)
    names = obs[[name for name in columns if name != "dose"]].astype(str).agg(" in ".join, axis=1)
    if dose_key is not None:
        names = names + [f" at {dose:g}" for dose in obs["dose"].astype(float)]
    obs.index = pd.Index(names.to_list())
    profile, lfc, error = np.stack(found, axis=1).astype(np.float32)
    layers = {"lfc": lfc, "lfc_error": error}
    return AnnData(profile, obs=obs, var=adata.var[[]].copy(), layers=layers)


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
