"""Minibatches of counts in compressed rows, and what networks read from them."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from types import ModuleType

    import numpy as np

try:
    from betavi.kernels import compiled as _compiled
except ImportError:
    _compiled = None  # type: ignore[assignment]  # the plain path is taken

compiled: ModuleType | None = _compiled
"""The compiled loops, if Numba is installed."""

SMALLEST_LIBRARY = 1e-8
"""Library size of a cell without counts, whose gradients then vanish."""

with warnings.catch_warnings():
    # torch says once in a process that its CSR tensors are in beta
    warnings.filterwarnings("ignore", message="Sparse CSR tensor support")
    torch.sparse_csr_tensor([0, 0], [], [], (1, 1), check_invariants=False)


def compressed(
    pointers: Tensor, columns: Tensor, values: Tensor, shape: torch.Size | tuple[int, ...]
) -> Tensor:
    """Return a matrix in compressed rows, without checking that its parts fit together.

    Parameters
    ----------
    pointers
        Start of each row among the entries, and end of the last, ``(n_rows + 1,)``.
    columns, values, shape
        Of all entries, ``(n_entries,)``; number of rows and columns.

    Returns
    -------
    A CSR tensor.

    Examples
    --------
    >>> from betavi.kernels import compressed
    >>> pointers, columns = torch.tensor([0, 1, 2]), torch.tensor([2, 0])
    >>> compressed(pointers, columns, torch.tensor([5.0, 1.0]), (2, 3)).to_dense().tolist()
    [[0.0, 0.0, 5.0], [1.0, 0.0, 0.0]]
    """
    return torch.sparse_csr_tensor(pointers, columns, values, shape, check_invariants=False)


def rows_of(
    starts: Tensor, lengths: Tensor, columns: Tensor, values: Tensor, n_columns: int
) -> Tensor:
    """Return some rows of a matrix on a CPU, in single precision.

    Parameters
    ----------
    starts, lengths
        Start of each row among the entries, and its number of entries, ``(n_rows,)``.
    columns, values, n_columns
        Of all entries; width of the matrix.

    Returns
    -------
    A CSR tensor, ``(n_rows, n_columns)``.

    Examples
    --------
    >>> from betavi.kernels import rows_of
    >>> starts, lengths = torch.tensor([1, 0]), torch.tensor([1, 1])
    >>> columns, values = torch.tensor([0, 2]).int(), torch.tensor([5.0, 7.0])
    >>> rows_of(starts, lengths, columns, values, n_columns=3).to_dense().tolist()
    [[0.0, 0.0, 7.0], [5.0, 0.0, 0.0]]
    """
    assert compiled is not None
    given = (part.numpy() for part in (starts, lengths, columns, values))
    pointers, some_columns, some_values = map(torch.from_numpy, compiled.rows_of(*given))
    return compressed(pointers, some_columns, some_values, (len(starts), n_columns))


def is_compressed(x: Tensor) -> bool:
    """Return True if a minibatch holds its nonzeros only.

    Parameters
    ----------
    x
        Dense or CSR, ``(n_cells, n_features)``.

    Returns
    -------
    False for a dense tensor.

    Examples
    --------
    >>> from betavi.kernels import is_compressed
    >>> is_compressed(torch.eye(2).to_sparse_csr())
    True
    """
    return x.layout == torch.sparse_csr


@torch.compiler.disable
def dense(x: Tensor) -> Tensor:
    """Return a minibatch with its zeros.

    Parameters
    ----------
    x
        Dense or CSR, ``(n_cells, n_features)``.

    Returns
    -------
    ``(n_cells, n_features)``; ``x`` itself if it is dense.

    Examples
    --------
    >>> from betavi.kernels import dense
    >>> dense(torch.eye(2).to_sparse_csr()).tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """
    return x.to_dense() if is_compressed(x) else x


@torch.compiler.disable
def totals(x: Tensor) -> Tensor:
    """Return the sum of each row.

    Parameters
    ----------
    x
        Dense or CSR, ``(n_cells, n_features)``.

    Returns
    -------
    ``(n_cells, 1)``.

    Examples
    --------
    >>> from betavi.kernels import totals
    >>> totals(torch.tensor([[1.0, 2.0], [0.0, 4.0]]).to_sparse_csr()).tolist()
    [[3.0], [4.0]]
    """
    if not is_compressed(x):
        return x.sum(dim=-1, keepdim=True)
    return torch.segment_reduce(x.values(), "sum", offsets=x.crow_indices().long())[:, None]


def observed_log_library(x: Tensor) -> Tensor:
    """Return the log of each cell's total; that of 1e-8 for a cell without counts.

    Parameters
    ----------
    x
        Counts, dense or CSR, ``(n_cells, n_features)``.

    Returns
    -------
    ``(n_cells, 1)``.

    Examples
    --------
    >>> from betavi.nn import observed_log_library
    >>> observed_log_library(torch.tensor([[1.0, 2.0], [0.0, 4.0]])).exp().round().tolist()
    [[3.0], [4.0]]
    """
    return totals(x).clamp_min(SMALLEST_LIBRARY).log()


@torch.compiler.disable
def log1p(x: Tensor) -> Tensor:
    """Return log(1 + x), with as many entries as x has.

    Parameters
    ----------
    x
        Dense or CSR, ``(n_cells, n_features)``.

    Returns
    -------
    ``(n_cells, n_features)``, CSR if x is.

    Examples
    --------
    >>> from betavi.kernels import is_compressed, log1p
    >>> x = torch.eye(2).expm1()
    >>> log1p(x).round().tolist(), is_compressed(log1p(x.to_sparse_csr()))
    ([[1.0, 0.0], [0.0, 1.0]], True)
    """
    if not is_compressed(x):
        return torch.log1p(x)
    return compressed(x.crow_indices(), x.col_indices(), x.values().log1p(), x.shape)


def parts_of(x: Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return row pointers, columns and values of a minibatch, as compiled loops read them."""
    if not is_compressed(x):
        x = x.to_sparse_csr()
    return x.crow_indices().numpy(), x.col_indices().numpy(), x.values().numpy()
