"""What denoising makes up: relations of genes that were shuffled, and have none."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy import sparse, stats

if TYPE_CHECKING:
    from collections.abc import Sequence

CELLS_OF_LIKE_DEPTH = 50
"""Cells among which counts are shuffled, so that what depth does to them stays."""

MOST_GENES = 300
"""Genes of each kind that are compared in pairs."""


ROUNDING = 1e-6
"""Relative to a gene's largest value, in single precision."""


class Shuffled(NamedTuple):
    """Counts of which some genes were shuffled, ``(n_cells, n_genes)``, which, and among which cells.

    Parameters
    ----------
    counts
        ``(n_cells, n_genes)``.
    genes
        Positions of the genes that were shuffled, ascending, ``(n_shuffled,)``.
    strata
        Cells with the same code, ``(n_cells,)``, are of a batch and of like depth.

    References
    ----------
    Andrews & Hemberg (2018), False signals induced by single-cell imputation.

    Examples
    --------
    >>> import numpy as np
    >>> from betavi.diagnostics import Shuffled, molecules
    >>> counts = molecules(np.array([[1, 0], [3, 0]]))
    >>> shuffled = Shuffled(counts, genes=np.array([0]), strata=np.zeros(2, dtype=int))
    >>> shuffled.within(counts.toarray()).tolist()
    [[-1.0, 0.0], [1.0, 0.0]]
    """

    counts: sparse.csr_matrix
    genes: np.ndarray
    strata: np.ndarray

    def within(self, values: np.ndarray) -> np.ndarray:
        """Return what values differ from the mean of the cells that they were shuffled among.

        Of a gene that was shuffled nothing can be left that tells one cell from another, unless it
        was brought in.
        """
        sizes = np.bincount(self.strata)[:, None]
        sums = np.zeros((len(sizes), values.shape[1]))
        np.add.at(sums, self.strata, values)
        off = values - (sums / sizes)[self.strata]
        # what only rounding tells apart is the same
        off[np.abs(off) <= ROUNDING * np.abs(values).max(axis=0)] = 0
        return off


def shuffle_genes(
    counts: sparse.csr_matrix, strata: np.ndarray, share: float = 0.5, seed: int = 0
) -> Shuffled:
    """Shuffle the counts of some genes, each by itself, among cells of the same stratum and depth.

    Nothing relates a shuffled gene to another gene or to a type of cells any more, but for depth
    and strata, which denoising is to know of.

    Parameters
    ----------
    counts
        ``(n_cells, n_genes)``.
    strata
        A code for each cell, such as its batch, ``(n_cells,)``.
    share
        Of the genes to shuffle.
    seed
        Of the permutations.

    Returns
    -------
    The counts, which genes were shuffled, and among which cells.

    References
    ----------
    Andrews & Hemberg (2018), False signals induced by single-cell imputation.

    Examples
    --------
    >>> import numpy as np
    >>> from betavi.diagnostics import molecules, shuffle_genes
    >>> counts = molecules(np.random.default_rng(0).poisson(2.0, size=(100, 4)))
    >>> shuffled = shuffle_genes(counts, strata=np.zeros(100))
    >>> len(shuffled.genes), bool((shuffled.counts.sum(axis=0) == counts.sum(axis=0)).all())
    (2, True)
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
        for part in np.array_split(stratum, max(1, len(stratum) // CELLS_OF_LIKE_DEPTH))
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
    """Return genes that were shuffled, and genes that were not, no more than can be paired.

    Parameters
    ----------
    shuffled
        Positions of those that were, ``(n_shuffled,)``.
    n_genes
        Number of all genes.
    seed
        Of the choice among more than 300 of a kind.

    Returns
    -------
    Positions of both, ascending, at most 300 each.

    Examples
    --------
    >>> import numpy as np
    >>> from betavi.diagnostics import some_of_each
    >>> [genes.tolist() for genes in some_of_each(np.array([1, 3]), n_genes=5)]
    [[1, 3], [0, 2, 4]]
    """
    rng = np.random.default_rng(seed)
    others = np.setdiff1d(np.arange(n_genes), shuffled)
    few = (np.sort(rng.permutation(part)[:MOST_GENES]) for part in (shuffled, others))
    return next(few), next(few)


def correlated_share(values: np.ndarray, alpha: float = 0.05) -> float:
    """Return the share of pairs of genes that a test calls correlated.

    Parameters
    ----------
    values
        ``(n_cells, n_genes)``.
    alpha
        The level of the test of Pearson correlations, over the number of pairs (Bonferroni).

    Returns
    -------
    A share between 0 and 1; NaN if there is no pair, or there are fewer than three cells.

    Examples
    --------
    >>> import numpy as np
    >>> from betavi.diagnostics import correlated_share
    >>> values = np.random.default_rng(0).normal(size=(100, 3))
    >>> values[:, 1] = values[:, 0]
    >>> round(correlated_share(values), 2)
    0.33
    """
    standardised = _standardised(values)
    correlations = standardised.T @ standardised
    pairs = correlations[np.triu_indices(len(correlations), 1)]
    degrees = len(values) - 2
    if not len(pairs) or degrees < 1:
        return float("nan")
    t = stats.t.isf(alpha / len(pairs) / 2, degrees)
    return float((np.abs(pairs) > t / np.sqrt(degrees + t**2)).mean())


def _standardised(values: np.ndarray) -> np.ndarray:
    centred = values - values.mean(axis=0)
    norm = np.linalg.norm(centred, axis=0)
    return np.divide(centred, norm, out=np.zeros_like(centred), where=norm > 0)


def marker_share(
    values: np.ndarray, groups: Sequence[int] | np.ndarray, alpha: float = 0.05
) -> float:
    """Return the share of genes that a test calls different between groups of cells.

    Parameters
    ----------
    values
        ``(n_cells, n_genes)``.
    groups
        A code for each cell, ``(n_cells,)``.
    alpha
        The false discovery rate of a one-way analysis of variance (Benjamini & Hochberg).

    Returns
    -------
    A share between 0 and 1; NaN if fewer than two groups have two cells.

    Examples
    --------
    >>> import numpy as np
    >>> from betavi.diagnostics import marker_share
    >>> groups = np.repeat([0, 1], 50)
    >>> values = np.random.default_rng(0).normal(size=(100, 2))
    >>> values[:, 1] += 3 * groups
    >>> marker_share(values, groups)
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
