"""Random splits of molecules, which simulate a second, independent measurement."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from scipy import sparse

from betavi import _blocks

if TYPE_CHECKING:
    from collections.abc import Iterator


class Thinned(NamedTuple):
    """Counts of the remaining and of the held-out molecules.

    Parameters
    ----------
    kept
        Counts of the remaining molecules, CSR, ``(n_cells, n_genes)``.
    held_out
        Counts of the held-out molecules, CSR, ``(n_cells, n_genes)``.
    fraction
        Probability that a molecule is held out.

    Examples
    --------
    >>> halves = thin(np.array([[10, 0], [200, 3]]), fraction=0.2)
    >>> halves.kept.shape, halves.odds
    ((2, 2), 0.25)
    """

    kept: sparse.csr_matrix
    held_out: sparse.csr_matrix
    fraction: float

    @property
    def odds(self) -> float:
        """Ratio of expected held-out counts to expected remaining counts."""
        return self.fraction / (1 - self.fraction)


def thin(counts: Any, fraction: float = 0.1, seed: int = 0) -> Thinned:
    """Hold out each molecule independently, with the same probability.

    Given the expected expression of a cell, remaining and held-out molecules are independent. The
    remaining molecules therefore predict the expected counts of held-out molecules, but not their
    noise.

    Parameters
    ----------
    counts
        Whole numbers, ``(n_cells, n_genes)``, dense or sparse.
    fraction
        Probability that a molecule is held out, between 0 and 1.
    seed
        Seed of the split.

    Returns
    -------
    Remaining and held-out molecules, each ``(n_cells, n_genes)``.

    Raises
    ------
    ValueError
        If the fraction is not between 0 and 1, or counts are not whole numbers.

    References
    ----------
    Batson, Royer & Webber (2019), Molecular cross-validation for single-cell RNA-seq.

    Examples
    --------
    >>> halves = thin(np.array([[10, 0], [200, 3]]), fraction=0.5)
    >>> (halves.kept + halves.held_out).toarray().astype(int).tolist()
    [[10, 0], [200, 3]]
    """
    if not 0 < fraction < 1:
        raise ValueError(f"`fraction` must be between 0 and 1, not {fraction!r}.")
    whole = molecules(counts)
    taken = np.random.default_rng(seed).binomial(whole.data.astype(np.int64), fraction)
    kept, held_out = (_with_data(whole, part) for part in (whole.data - taken, taken))
    return Thinned(kept, held_out, fraction)


def molecules(counts: Any) -> sparse.csr_matrix:
    """Convert counts to a CSR matrix, and check that they are whole numbers.

    Parameters
    ----------
    counts
        Dense or sparse, ``(n_cells, n_genes)``.

    Returns
    -------
    A new matrix.

    Raises
    ------
    ValueError
        If counts are not whole numbers.

    Examples
    --------
    >>> molecules(np.array([[0, 2], [1, 0]])).nnz
    2
    """
    whole = sparse.csr_matrix(counts)
    fractions = whole.data[whole.data != np.round(whole.data)]
    if fractions.size:
        raise ValueError(
            f"The registered values are not whole numbers, for example {fractions[0]:g}. Register "
            "the layer with the counts: setup_anndata(..., layer=...)"
        )
    return whole


def _with_data(matrix: sparse.csr_matrix, data: np.ndarray) -> sparse.csr_matrix:
    # matrix.astype() may sort the entries, and the data would keep their old order
    indices, indptr = matrix.indices.copy(), matrix.indptr.copy()
    other = sparse.csr_matrix((data.astype(np.float32), indices, indptr), shape=matrix.shape)
    other.eliminate_zeros()
    return other


def blocks(n_rows: int) -> Iterator[slice]:
    """Yield consecutive slices of rows."""
    size = _blocks.HELD_OUT_CELLS
    for start in range(0, n_rows, size):
        yield slice(start, min(start + size, n_rows))
