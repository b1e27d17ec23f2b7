"""Variance and share of zeros of genes as curves of the mean."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from betavi.metrics._cells import read_cells

if TYPE_CHECKING:
    from anndata import AnnData
    from scipy import sparse

MOST_BINS, GENES_PER_BIN, FEWEST_GENES = 20, 10, 5
VAR_OFFSET = 1e-6  # added to variances before the logarithm


def mean_curves(cells: AnnData | Mapping[str, AnnData], layer: str | None = None) -> pd.DataFrame:
    """Return genes' variance and share of zeros as curves of their mean, for each set of cells.

    Pure counting noise has a variance equal to the mean, and :math:`e^{-mean}` zeros. Biology,
    measurement noise and dropouts increase both.

    Parameters
    ----------
    cells
        Object with counts, or several objects by name. The first object sets the bins.
    layer
        Layer of the counts. If None, ``X``.

    Returns
    -------
    One row for each set of cells and each bin. A bin holds genes with similar means. There are up
    to 20 bins, each with the same number of genes in the first set, at least ten. For a set with
    fewer than five genes in a bin, the row is left out. Columns: ``cells``, the name of the set;
    ``bin``, the number of the bin; ``mean`` and ``variance``, geometric means over the genes of the
    bin; ``zeros``, the share of cells without a count, as a mean over these genes; ``n_genes``, the
    number of these genes. Means are counts per cell, not scaled.

    Raises
    ------
    KeyError
        If the layer is missing.
    ValueError
        If all counts are zero.

    Examples
    --------
    >>> import betavi
    >>> adata = betavi.datasets.simulate_counts(n_cells=300, n_genes=100)
    >>> table = betavi.metrics.mean_curves(adata)
    >>> bool(table["variance"].gt(0.9 * table["mean"]).all())
    True
    """
    several = cells if isinstance(cells, Mapping) else {"cells": cells}
    moments = {
        name: gene_moments(read_cells(name, adata, layer).counts) for name, adata in several.items()
    }
    return curves(moments)


def gene_moments(counts: sparse.csr_matrix) -> pd.DataFrame:
    """Return mean, variance and share of zeros of each gene."""
    mean = np.asarray(counts.mean(axis=0)).ravel()
    square = np.asarray(counts.multiply(counts).mean(axis=0)).ravel()
    variance = np.maximum(square - np.square(mean), 0)
    zeros = 1 - counts.getnnz(axis=0) / counts.shape[0]
    return pd.DataFrame({"mean": mean, "variance": variance, "zeros": zeros})


def curves(moments: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Return the curves of sets of genes. See :func:`mean_curves`."""
    first = next(iter(moments.values()))["mean"]
    n_bins = int(np.clip((first > 0).sum() // GENES_PER_BIN, 1, MOST_BINS))
    edges = np.unique(np.quantile(first[first > 0], np.linspace(0, 1, n_bins + 1)[1:-1]))
    parts = []
    for name, genes in moments.items():
        some = genes[genes["mean"] > 0]
        logs = {"mean": np.log(some["mean"]), "variance": np.log(some["variance"] + VAR_OFFSET)}
        binned = some.assign(**logs).groupby(np.digitize(some["mean"], edges))
        table = binned.mean().assign(n_genes=binned.size())
        table[["mean", "variance"]] = np.exp(table[["mean", "variance"]])
        table = table[table["n_genes"] >= FEWEST_GENES].rename_axis("bin").reset_index()
        parts.append(table.assign(cells=name))
    columns = ["cells", "bin", "mean", "variance", "zeros", "n_genes"]
    return pd.concat(parts, ignore_index=True)[columns]


def curve_distances(one: pd.DataFrame, two: pd.DataFrame) -> dict[str, float]:
    """Return the mean distances between two sets' curves, where both sets have genes."""
    table = curves({"one": one, "two": two}).set_index(["cells", "bin"])
    if not {"one", "two"} <= set(table.index.get_level_values(0)):
        return {"variance_curve": float("nan"), "zeros_curve": float("nan")}
    first, second = (table.loc[name] for name in ("one", "two"))
    variance = (np.log10(second["variance"]) - np.log10(first["variance"])).abs().mean()
    zeros = (second["zeros"] - first["zeros"]).abs().mean()
    return {"variance_curve": float(variance), "zeros_curve": float(zeros)}
