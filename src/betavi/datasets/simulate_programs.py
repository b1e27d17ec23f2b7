"""Counts with known gene programs, each active in some cells."""

from __future__ import annotations

import anndata
import numpy as np
import pandas as pd
from scipy import sparse

from betavi._tables import check_whole, lookup

SHARE_ACTIVE, SHARE_OF_GENES = 0.3, 0.08
"""Share of the cells in which a program is active, and share of the genes in a program."""

THETA, MEAN_DEPTH, DEPTH_SPREAD = 5.0, 2000.0, 0.3
"""Inverse dispersion of counts, median total of a cell, and standard deviation of its log."""


def simulate_programs(
    n_cells: int = 3000,
    n_genes: int = 1000,
    n_programs: int = 10,
    scale: str = "log",
    seed: int = 0,
) -> anndata.AnnData:
    r"""Simulate cells with independent gene programs.

    A program is active in 30 % of the cells, with a different strength in each. It raises 8 % of the
    genes. Programs share genes by chance. Counts are negative binomial.

    Parameters
    ----------
    n_cells, n_genes, n_programs
        Numbers of cells, genes and programs.
    scale
        ``"log"``: programs add up in log rates. ``"rate"``: each program adds to the rates, as if its
        RNA came on top.
    seed
        Seed of all random numbers.

    Returns
    -------
    AnnData with counts in ``X``, the strength of each program in ``obsm["activity"]``,
    ``(n_cells, n_programs)``, and the natural log fold changes at strength 1 in ``varm["programs"]``,
    ``(n_genes, n_programs)``.

    Raises
    ------
    ValueError
        If a number is not a whole number of at least 1, or ``scale`` is unknown.

    References
    ----------
    Kotliar et al. (2019), Identifying gene expression programs of cell-type identity and cellular
    activity with single-cell RNA-Seq, for programs of this kind.

    Examples
    --------
    >>> import betavi
    >>> adata = betavi.datasets.simulate_programs(n_cells=100, n_genes=50, n_programs=4)
    >>> adata.shape, adata.obsm["activity"].shape, adata.varm["programs"].shape
    ((100, 50), (100, 4), (50, 4))
    """
    for name, size in {"n_cells": n_cells, "n_genes": n_genes, "n_programs": n_programs}.items():
        check_whole(name, size)
    adds_up = lookup({"log": _log_sum, "rate": _rate_sum}, scale, "scale")
    rng = np.random.default_rng(seed)
    is_active = rng.random((n_cells, n_programs)) < SHARE_ACTIVE
    activity = is_active * rng.gamma(4.0, 0.25, (n_cells, n_programs))
    is_member = rng.random((n_genes, n_programs)) < SHARE_OF_GENES
    loadings = is_member * rng.gamma(4.0, 0.4, (n_genes, n_programs))
    shares = np.exp(rng.normal(0.0, 1.0, n_genes) + adds_up(activity, loadings))
    shares /= shares.sum(axis=1, keepdims=True)
    depth = MEAN_DEPTH * np.exp(rng.normal(0.0, DEPTH_SPREAD, (n_cells, 1)))
    counts = rng.poisson(depth * shares * rng.gamma(THETA, 1 / THETA, (n_cells, n_genes)))
    adata = anndata.AnnData(
        sparse.csr_matrix(counts.astype(np.float32)),
        pd.DataFrame(index=[f"cell_{i}" for i in range(n_cells)]),
        pd.DataFrame(index=[f"gene_{j}" for j in range(n_genes)]),
    )
    adata.obsm["activity"], adata.varm["programs"] = activity, loadings
    return adata


def _log_sum(activity: np.ndarray, loadings: np.ndarray) -> np.ndarray:
    return activity @ loadings.T


def _rate_sum(activity: np.ndarray, loadings: np.ndarray) -> np.ndarray:
    return np.log1p(activity @ np.expm1(loadings).T)
