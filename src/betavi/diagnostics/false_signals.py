"""False signals of denoising: associations of shuffled genes, which have no true ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy import sparse, stats

if TYPE_CHECKING:
    from collections.abc import Sequence

CELLS_PER_STRATUM = 50  # counts are shuffled among cells of similar depth, to keep depth effects
MOST_GENES = 300  # most shuffled genes, and most other genes, that are compared in pairs
ROUNDING = 1e-6  # error of single precision, relative to a gene's largest value


class Shuffled(NamedTuple):
    """Counts with some genes shuffled, see :func:`shuffle_genes`.

    Parameters
    ----------
    counts
        Counts, ``(n_cells, n_genes)``.
    genes
        Positions of the shuffled genes, ascending, ``(n_shuffled,)``.
    strata
        Code of the stratum of each cell, ``(n_cells,)``. A stratum is a group of cells from one
        batch and of similar depth. Counts were shuffled only within these groups.

    Examples
    --------
    >>> counts = sparse.csr_matrix(np.array([[1, 0], [3, 0]]))
    >>> Shuffled(counts, np.array([0]), np.zeros(2, dtype=int)).within(counts.toarray()).tolist()
    [[-1.0, 0.0], [1.0, 0.0]]
    """

    counts: sparse.csr_matrix
    genes: np.ndarray
    strata: np.ndarray

    def within(self, values: np.ndarray) -> np.ndarray:
        """Subtract the mean of each stratum. Shuffled genes then have false signals only."""
        sizes = np.bincount(self.strata)[:, None]
        sums = np.zeros((len(sizes), values.shape[1]))
        np.add.at(sums, self.strata, values)
        off = values - (sums / sizes)[self.strata]
        # rounding errors would be significant in a gene that does not vary
        off[np.abs(off) <= ROUNDING * np.abs(values).max(axis=0)] = 0
        return off


def shuffle_genes(
    counts: sparse.csr_matrix, strata: np.ndarray, share: float = 0.5, seed: int = 0
) -> Shuffled:
    """Shuffle the counts of some genes among cells of the same batch and of similar depth.

    Each gene is shuffled independently. A shuffled gene is then associated with other genes and
    cell types only through batch and depth, which denoising takes into account.

    Parameters
    ----------
    counts
        Counts, ``(n_cells, n_genes)``.
    strata
        Code of each cell, such as the batch, ``(n_cells,)``. Counts are shuffled only among cells
        with the same code.
    share
        Share of the genes to shuffle.
    seed
        Seed of the permutations.

    Returns
    -------
    Counts, shuffled genes, and the group of each cell by code and depth.

    References
    ----------
    Andrews & Hemberg (2018), False signals induced by single-cell imputation.

    Examples
    --------
    >>> counts = sparse.csr_matrix(np.random.default_rng(0).poisson(2.0, size=(100, 4)))
    >>> len(shuffle_genes(counts, strata=np.zeros(100)).genes)
    2
    """
    rng = np.random.default_rng(seed)
    n_cells, n_genes = counts.shape
    genes = np.sort(rng.choice(n_genes, max(2, round(share * n_genes)), replace=False))
    totals = np.asarray(counts.sum(axis=1)).ravel()
    order = np.lexsort((totals, strata))
    cuts = np.flatnonzero(np.diff(np.asarray(strata)[order])) + 1
    groups = [
        part
        for stratum in np.split(order, cuts)
        for part in np.array_split(stratum, max(1, len(stratum) // CELLS_PER_STRATUM))
    ]
    codes = np.empty(n_cells, dtype=np.int64)
    codes[np.concatenate(groups)] = np.repeat(np.arange(len(groups)), [len(g) for g in groups])
    columns = sparse.csc_matrix(counts, copy=True)
    for gene in genes:
        some = slice(columns.indptr[gene], columns.indptr[gene + 1])
        moved = np.arange(n_cells)
        for group in groups:
            moved[group] = rng.permutation(group)
        columns.indices[some] = moved[columns.indices[some]]
    columns.has_sorted_indices = False
    columns.sort_indices()
    return Shuffled(sparse.csr_matrix(columns), genes, codes)


def some_of_each(
    shuffled: np.ndarray, n_genes: int, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Choose at most 300 shuffled genes and at most 300 others.

    Parameters
    ----------
    shuffled
        Positions of the shuffled genes, ``(n_shuffled,)``.
    n_genes
        Number of all genes.
    seed
        Seed of the choice.

    Returns
    -------
    Positions of the chosen shuffled genes and of the chosen others, ascending.

    Examples
    --------
    >>> [genes.tolist() for genes in some_of_each(np.array([1, 3]), n_genes=5)]
    [[1, 3], [0, 2, 4]]
    """
    rng = np.random.default_rng(seed)
    others = np.setdiff1d(np.arange(n_genes), shuffled)
    few = (np.sort(rng.permutation(part)[:MOST_GENES]) for part in (shuffled, others))
    return next(few), next(few)


def correlated_share(values: np.ndarray, alpha: float = 0.05) -> float:
    """Return the share of gene pairs with a significant Pearson correlation.

    Parameters
    ----------
    values
        Expression, ``(n_cells, n_genes)``.
    alpha
        Significance level of the test over all pairs (Bonferroni).

    Returns
    -------
    A share between 0 and 1. NaN without pairs or with fewer than three cells.

    Examples
    --------
    >>> correlated_share(np.array([[0.0, 0.0], [1.0, 1.0], [2.0, 2.0], [3.0, 3.1]]))
    1.0
    """
    centred = values - values.mean(axis=0)
    norm = np.linalg.norm(centred, axis=0)
    standardised = np.divide(centred, norm, out=np.zeros_like(centred), where=norm > 0)
    correlations = standardised.T @ standardised
    pairs = correlations[np.triu_indices(len(correlations), 1)]
    degrees = len(values) - 2
    if not len(pairs) or degrees < 1:
        return float("nan")
    t = stats.t.isf(alpha / len(pairs) / 2, degrees)
    return float((np.abs(pairs) > t / np.sqrt(degrees + t**2)).mean())


def marker_share(
    values: np.ndarray, groups: Sequence[int] | np.ndarray, alpha: float = 0.05
) -> float:
    """Return the share of genes that differ significantly between groups of cells.

    Parameters
    ----------
    values
        Expression, ``(n_cells, n_genes)``.
    groups
        Group of each cell, ``(n_cells,)``.
    alpha
        False discovery rate (Benjamini & Hochberg) of a one-way analysis of variance.

    Returns
    -------
    A share between 0 and 1. NaN if fewer than two groups have at least two cells.

    Examples
    --------
    >>> marker_share(np.array([[0.0, 1.0], [0.1, 2.0], [9.0, 1.0], [9.1, 2.0]]), [0, 0, 1, 1])
    0.5
    """
    parts = [values[np.asarray(groups) == group] for group in np.unique(groups)]
    parts = [part for part in parts if len(part) > 1]
    if len(parts) < 2:
        return float("nan")
    varies = np.ptp(values, axis=0) > 0
    p = np.ones(values.shape[1])
    p[varies] = stats.f_oneway(*(part[:, varies] for part in parts), axis=0).pvalue
    return float((stats.false_discovery_control(p) < alpha).mean())
