"""What a denoiser has to be better than: nothing, the gene's mean, neighbours, few dimensions."""

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
    """Return the share of each gene of all molecules of each batch, ``(n_batches, n_genes)``."""
    n_cells = len(batch)
    of_batch = sparse.csr_matrix(
        (np.ones(n_cells), (batch, np.arange(n_cells))),
        shape=(int(batch.max(initial=0)) + 1, n_cells),
    )
    sums = np.asarray((of_batch @ counts).toarray(), dtype=np.float64)
    shares: np.ndarray = sums / sums.sum(axis=1, keepdims=True).clip(1)
    return shares


def _shares(counts: sparse.csr_matrix) -> sparse.csr_matrix:
    """Return each count as a share of its cell's total."""
    return sparse.csr_matrix(sparse.diags(1 / totals_of(counts).clip(1).ravel()) @ counts)


def _svd(
    values: sparse.csr_matrix, n_components: int, seed: int
) -> tuple[TruncatedSVD, np.ndarray]:
    svd = TruncatedSVD(max(1, min(n_components, min(values.shape) - 1)), random_state=seed)
    return svd, svd.fit_transform(values)


def raw_counts(counts: sparse.csr_matrix, _seed: int = 0) -> Iterator[np.ndarray]:
    """Yield the counts as they are.

    Parameters
    ----------
    counts
        ``(n_cells, n_genes)``.
    _seed
        Not read: nothing is drawn at random.

    Yields
    ------
    Expected counts of consecutive cells, ``(n, n_genes)``.

    Examples
    --------
    >>> import numpy as np
    >>> from betavi.diagnostics import BASELINES, molecules
    >>> counts = molecules(np.array([[4, 0], [2, 2]]))
    >>> [block.tolist() for block in BASELINES["raw counts"](counts, 0)]
    [[[4, 0], [2, 2]]]
    """
    for rows in blocks(counts.shape[0]):
        yield counts[rows].toarray()


def gene_means(counts: sparse.csr_matrix, _seed: int = 0) -> Iterator[np.ndarray]:
    """Yield each cell's total times each gene's share of all: no cell differs but in depth.

    Parameters
    ----------
    counts, _seed
        See :func:`raw_counts`.

    Yields
    ------
    As of :func:`raw_counts`.

    Examples
    --------
    >>> import numpy as np
    >>> from betavi.diagnostics import BASELINES, molecules
    >>> counts = molecules(np.array([[4, 0], [2, 2]]))
    >>> next(BASELINES["gene mean x depth"](counts, 0)).tolist()
    [[3.0, 1.0], [3.0, 1.0]]
    """
    totals = totals_of(counts)
    (profile,) = profiles_of(counts, np.zeros(counts.shape[0], dtype=np.int64))
    for rows in blocks(counts.shape[0]):
        yield totals[rows] * profile


def neighbour_means(counts: sparse.csr_matrix, seed: int = 0) -> Iterator[np.ndarray]:
    """Yield the mean share of a cell's nearest neighbours, itself among them, times its total.

    Neighbours are those in 50 principal directions of log(1 + counts per 10,000).

    Parameters
    ----------
    counts
        See :func:`raw_counts`.
    seed
        Of the search for the directions.

    Yields
    ------
    As of :func:`raw_counts`.

    Examples
    --------
    >>> import numpy as np
    >>> from betavi.diagnostics import BASELINES, molecules
    >>> counts = molecules(np.random.default_rng(0).poisson(3.0, size=(50, 8)))
    >>> smooth = next(BASELINES["kNN smoothing"](counts, 0))
    >>> np.allclose(smooth.sum(axis=1), counts.sum(axis=1).A1)
    True
    """
    totals, shares = totals_of(counts), _shares(counts)
    _, positions = _svd((shares * TARGET_SUM).log1p(), N_COMPONENTS, seed)
    neighbours = NearestNeighbors(n_neighbors=min(N_NEIGHBOURS, len(positions))).fit(positions)
    graph = neighbours.kneighbors_graph(positions)
    weights = sparse.csr_matrix(graph / graph.sum(axis=1).max())
    for rows in blocks(counts.shape[0]):
        yield (weights[rows] @ shares).toarray() * totals[rows]


def low_rank(counts: sparse.csr_matrix, seed: int = 0) -> Iterator[np.ndarray]:
    """Yield the shares in their 50 principal directions, not below zero, times the cell's total.

    Parameters
    ----------
    counts, seed
        See :func:`neighbour_means`.

    Yields
    ------
    As of :func:`raw_counts`.

    Examples
    --------
    >>> import numpy as np
    >>> from betavi.diagnostics import BASELINES, molecules
    >>> of_two_profiles = np.array([[2, 6, 1], [4, 12, 2], [3, 1, 5]])
    >>> found = next(BASELINES["truncated SVD"](molecules(of_two_profiles), 0))
    >>> np.allclose(found, of_two_profiles)
    True
    """
    totals, shares = totals_of(counts), _shares(counts)
    # whose numbers are of order one
    unit = max(float(np.median(totals)), 1.0)
    svd, positions = _svd(shares * unit, N_COMPONENTS, seed)
    for rows in blocks(counts.shape[0]):
        yield svd.inverse_transform(positions[rows]).clip(0) * totals[rows] / unit


BASELINES: dict[str, Callable[[sparse.csr_matrix, int], Iterator[np.ndarray]]] = {
    "raw counts": raw_counts,
    "gene mean x depth": gene_means,
    "kNN smoothing": neighbour_means,
    "truncated SVD": low_rank,
}
"""Expected counts at each cell's own depth, a block of cells at a time, by name."""

NULL = "gene mean x depth"
"""The one that knows of no difference between cells."""
