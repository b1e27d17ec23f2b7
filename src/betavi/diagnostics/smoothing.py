"""Baselines of denoising: raw counts, gene means, neighbour means and truncated SVD."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse
from sklearn.decomposition import TruncatedSVD
from sklearn.neighbors import NearestNeighbors

from betavi.diagnostics.thinning import blocks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

N_COMPONENTS = 50
N_NEIGHBOURS = 15
TARGET_SUM = 1e4


def totals_of(counts: sparse.csr_matrix) -> np.ndarray:
    """Return the number of molecules of each cell, ``(n_cells, 1)``."""
    return np.asarray(counts.sum(axis=1, dtype=np.float64)).reshape(-1, 1)


def profiles_of(counts: sparse.csr_matrix, batch: np.ndarray) -> np.ndarray:
    """Return each gene's share of the molecules of each batch, ``(n_batches, n_genes)``."""
    n_cells = len(batch)
    of_batch = sparse.csr_matrix(
        (np.ones(n_cells), (batch, np.arange(n_cells))),
        shape=(int(batch.max(initial=0)) + 1, n_cells),
    )
    sums = np.asarray((of_batch @ counts).toarray(), dtype=np.float64)
    return sums / sums.sum(axis=1, keepdims=True).clip(1)


def _shares(counts: sparse.csr_matrix) -> sparse.csr_matrix:
    """Return each count as a share of its cell's total."""
    return sparse.csr_matrix(sparse.diags(1 / totals_of(counts).clip(1).ravel()) @ counts)


def _svd(values: sparse.csr_matrix, seed: int) -> tuple[TruncatedSVD, np.ndarray]:
    svd = TruncatedSVD(max(1, min(N_COMPONENTS, min(values.shape) - 1)), random_state=seed)
    return svd, svd.fit_transform(values)


def raw_counts(counts: sparse.csr_matrix, _seed: int = 0) -> Iterator[np.ndarray]:
    """Yield the counts, ``(n_cells, n_genes)``, unchanged, in blocks of cells.

    Examples
    --------
    >>> [block.tolist() for block in raw_counts(sparse.csr_matrix(np.array([[4, 0], [2, 2]])))]
    [[[4, 0], [2, 2]]]
    """
    for rows in blocks(counts.shape[0]):
        yield counts[rows].toarray()


def gene_means(counts: sparse.csr_matrix, _seed: int = 0) -> Iterator[np.ndarray]:
    """Yield the total of each cell times each gene's share of all molecules.

    Examples
    --------
    >>> next(gene_means(sparse.csr_matrix(np.array([[4, 0], [2, 2]])))).tolist()
    [[3.0, 1.0], [3.0, 1.0]]
    """
    totals = totals_of(counts)
    (profile,) = profiles_of(counts, np.zeros(counts.shape[0], dtype=np.int64))
    for rows in blocks(counts.shape[0]):
        yield totals[rows] * profile


def neighbour_means(counts: sparse.csr_matrix, seed: int = 0) -> Iterator[np.ndarray]:
    """Yield the mean gene shares of the 15 nearest cells, times the total count of the cell.

    The cell itself is one of the 15. Distances are in 50 principal directions of log(1 + counts per
    10,000).

    Examples
    --------
    >>> next(neighbour_means(sparse.csr_matrix(np.arange(18).reshape(9, 2)))).shape
    (9, 2)
    """
    totals, shares = totals_of(counts), _shares(counts)
    _, positions = _svd((shares * TARGET_SUM).log1p(), seed)
    neighbours = NearestNeighbors(n_neighbors=min(N_NEIGHBOURS, len(positions))).fit(positions)
    graph = neighbours.kneighbors_graph(positions)
    weights = sparse.csr_matrix(graph / graph.sum(axis=1).max())
    for rows in blocks(counts.shape[0]):
        yield (weights[rows] @ shares).toarray() * totals[rows]


def low_rank(counts: sparse.csr_matrix, seed: int = 0) -> Iterator[np.ndarray]:
    """Yield the rank-50 approximation of gene shares, at least 0, times the cell's total.

    Examples
    --------
    >>> two_profiles = np.array([[2, 6, 1], [4, 12, 2], [3, 1, 5]])
    >>> np.allclose(next(low_rank(sparse.csr_matrix(two_profiles))), two_profiles)
    True
    """
    totals, shares = totals_of(counts), _shares(counts)
    # to numbers of order one
    unit = max(float(np.median(totals)), 1.0)
    svd, positions = _svd(shares * unit, seed)
    for rows in blocks(counts.shape[0]):
        yield svd.inverse_transform(positions[rows]).clip(0) * totals[rows] / unit


BASELINES: dict[str, Callable[[sparse.csr_matrix, int], Iterator[np.ndarray]]] = {
    "raw counts": raw_counts,
    "gene mean x depth": gene_means,
    "kNN smoothing": neighbour_means,
    "truncated SVD": low_rank,
}
"""Baselines by name. Each yields expected counts at each cell's own depth, ``(n, n_genes)``."""

NULL = "gene mean x depth"  # the null model, in which cells differ by depth only
