"""Simulated counts with known truth."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse, special, stats

from betavi.datasets import draws

if TYPE_CHECKING:
    from numpy.random import Generator


def simulate_counts(
    n_cells: int = 1000,
    n_genes: int = 200,
    n_factors: int = 5,
    n_types: int = 5,
    n_batches: int = 2,
    rare_share: float = 0.03,
    spread_within_type: float = 0.5,
    spread_of_batches: float = 0.2,
    library_size: float = 1000.0,
    zero_inflation: float = 0.05,
    seed: int = 0,
) -> AnnData:
    """Simulate zero-inflated negative binomial counts of cells with known latent factors.

    Each cell has a type, a position :math:`z` around the centre of its type, a batch and a library
    size. The mean counts of a cell are its library size times a softmax over genes. The input of
    the softmax is the sum of three terms: a constant of the gene, the gene's loadings times
    :math:`z`, and the effect of the batch on the gene.

    Parameters
    ----------
    n_cells, n_genes, n_factors
        Numbers of cells, genes and latent factors.
    n_types, n_batches
        Numbers of cell types and batches. Every batch has cells of every type.
    rare_share
        Share of the cells that belong to the last type.
    spread_within_type
        Standard deviation of the factors around the centre of a type. The centres themselves have a
        standard deviation of 1.
    spread_of_batches
        Standard deviation of a batch's log effect on a gene.
    library_size
        Median number of counts per cell, before zero inflation.
    zero_inflation
        Probability that a count is replaced by zero.
    seed
        Seed of the generator.

    Returns
    -------
    Counts in ``X`` (CSR, int32). The truth is in ``obsm["z"]`` ``(n_cells, n_factors)``,
    ``varm["loadings"]`` ``(n_genes, n_factors)``, ``varm["batch_effects"]``, ``var["log_base"]``,
    ``var["theta"]``, ``obs["library_size"]`` and ``uns["zero_inflation"]``.
    ``obs["log_likelihood"]`` is log p(x given z) in nats under the true model. On average, no other
    model has a higher value.

    Raises
    ------
    ValueError
        If a number is out of range.

    Examples
    --------
    >>> import betavi
    >>> adata = betavi.datasets.simulate_counts(n_cells=100, n_genes=20)
    >>> adata.obsm["z"].shape, sorted(adata.obs["batch"].unique())
    ((100, 5), ['batch_0', 'batch_1'])
    """
    numbers = {"n_cells": n_cells, "n_genes": n_genes, "n_factors": n_factors}
    numbers |= {"n_types": n_types, "n_batches": n_batches}
    draws.check_rules(
        (
            *((name, number, number >= 1, "at least 1") for name, number in numbers.items()),
            ("rare_share", rare_share, 0 <= rare_share <= 1, "between 0 and 1"),
            ("zero_inflation", zero_inflation, 0 <= zero_inflation < 1, "at least 0 and below 1"),
            ("library_size", library_size, library_size > 0, "above 0"),
            ("spread_within_type", spread_within_type, spread_within_type >= 0, "at least 0"),
            ("spread_of_batches", spread_of_batches, spread_of_batches >= 0, "at least 0"),
        )
    )
    rng = np.random.default_rng(seed)
    loadings, batch_effects, log_base, theta = _draw_genes(
        rng, (n_genes, n_factors, n_batches), spread_of_batches
    )
    shares = np.ones(n_types)
    if n_types > 1:
        shares[:] = (1 - rare_share) / (n_types - 1)
        shares[-1] = rare_share
    cell_type = rng.choice(n_types, size=n_cells, p=shares)
    batch = rng.integers(n_batches, size=n_cells)
    centres = rng.normal(size=(n_types, n_factors))
    z = centres[cell_type] + spread_within_type * rng.normal(size=(n_cells, n_factors))
    library = draws.draw_library_sizes(rng, n_cells, library_size)

    adata = AnnData(
        X=sparse.csr_matrix((n_cells, n_genes), dtype=np.int32),
        obs=pd.DataFrame(
            {
                "cell_type": pd.Categorical([f"type_{code}" for code in cell_type]),
                "batch": pd.Categorical([f"batch_{code}" for code in batch]),
                "library_size": library,
            },
            index=[f"cell_{i}" for i in range(n_cells)],
        ),
        var=pd.DataFrame(
            {"log_base": log_base, "theta": theta},
            index=[f"gene_{i}" for i in range(n_genes)],
        ),
        obsm={"z": z},
        varm={"loadings": loadings, "batch_effects": batch_effects},
        uns={"zero_inflation": zero_inflation},
    )
    adata.X, adata.obs["log_likelihood"] = _draw_counts(rng, adata)
    return adata


def _draw_genes(
    rng: Generator, sizes: tuple[int, int, int], spread_of_batches: float
) -> tuple[np.ndarray, ...]:
    """Return loadings, batch effects, log base expression and inverse dispersions."""
    n_genes, n_factors, n_batches = sizes
    loadings = draws.draw_loadings(rng, n_genes, n_factors)
    batch_effects = spread_of_batches * rng.normal(size=(n_genes, n_batches))
    return loadings, batch_effects, rng.normal(size=n_genes), draws.draw_theta(rng, n_genes)


def _means(adata: AnnData, rows: slice) -> np.ndarray:
    """Return the mean counts before inflation, ``(n_rows, n_genes)``."""
    codes = adata.obs["batch"].iloc[rows].str.removeprefix("batch_").astype(int).to_numpy()
    logits = adata.obsm["z"][rows] @ adata.varm["loadings"].T
    logits += adata.var["log_base"].to_numpy() + adata.varm["batch_effects"].T[codes]
    return adata.obs["library_size"].to_numpy()[rows, None] * special.softmax(logits, axis=1)


def _draw_counts(rng: Generator, adata: AnnData) -> tuple[sparse.csr_matrix, np.ndarray]:
    """Draw counts in blocks, so that no dense matrix of all cells is made."""
    inflation, theta = adata.uns["zero_inflation"], adata.var["theta"].to_numpy()
    blocks, log_likelihoods = [], []
    for rows in draws.block_slices(adata.n_obs):
        mean = _means(adata, rows)
        counts = draws.draw_negative_binomial(rng, mean, theta)
        counts *= rng.random(mean.shape) >= inflation
        mass = (1 - inflation) * stats.nbinom.pmf(counts, theta, theta / (theta + mean))
        mass += inflation * (counts == 0)
        blocks.append(sparse.csr_matrix(counts.astype(np.int32)))
        log_likelihoods.append(np.log(mass).sum(axis=1))
    return sparse.vstack(blocks, format="csr"), np.concatenate(log_likelihoods)
