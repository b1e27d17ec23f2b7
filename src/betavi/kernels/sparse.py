"""Minibatches of counts as CSR tensors, and the operations that networks need on them."""

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
    _compiled = None  # type: ignore[assignment]  # without Numba

compiled: ModuleType | None = _compiled
"""The module of compiled loops, or None without Numba."""

SMALLEST_LIBRARY = 1e-8
"""Library size of a cell without counts, for which gradients vanish."""

with warnings.catch_warnings():
    # torch warns once per process that its CSR tensors are in beta
    warnings.filterwarnings("ignore", message="Sparse CSR tensor support")
    torch.sparse_csr_tensor([0, 0], [], [], (1, 1), check_invariants=False)


def compressed(
    pointers: Tensor, columns: Tensor, values: Tensor, shape: torch.Size | tuple[int, ...]
) -> Tensor:
    """Return a CSR tensor, without checking that its parts fit together.

    ``pointers``, ``(n_rows + 1,)``, are the start of each row, followed by the end of the last row.
    """
    return torch.sparse_csr_tensor(pointers, columns, values, shape, check_invariants=False)


def is_compressed(x: Tensor) -> bool:
    """Return True if a minibatch is a CSR tensor."""
    return x.layout == torch.sparse_csr


@torch.compiler.disable
def dense(x: Tensor) -> Tensor:
    """Return a minibatch as a dense tensor.

    Parameters
    ----------
    x
        Dense or CSR, ``(n_cells, n_features)``.

    Returns
    -------
    Dense, ``(n_cells, n_features)``. ``x`` itself if it is dense.

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
    Sums, ``(n_cells, 1)``.

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
    """Return the log of each cell's total count, or log 1e-8 for a cell without counts.

    Parameters
    ----------
    x
        Counts, dense or CSR, ``(n_cells, n_features)``.

    Returns
    -------
    Log totals, ``(n_cells, 1)``.

    Examples
    --------
    >>> from betavi.nn import observed_log_library
    >>> observed_log_library(torch.tensor([[1.0, 2.0], [0.0, 4.0]])).exp().round().tolist()
    [[3.0], [4.0]]
    """
    return totals(x).clamp_min(SMALLEST_LIBRARY).log()


@torch.compiler.disable
def log1p(x: Tensor) -> Tensor:
    """Return log(1 + x), CSR if ``x`` is."""
    if not is_compressed(x):
        return torch.log1p(x)
    return compressed(x.crow_indices(), x.col_indices(), x.values().log1p(), x.shape)


@torch.compiler.disable
def scaled(x: Tensor, weights: Tensor) -> Tensor:
    """Return the rows of a minibatch times ``weights``, ``(n_rows,)``; CSR if ``x`` is."""
    if not is_compressed(x):
        return x * weights[:, None]
    lengths, n_values = x.crow_indices().diff(), x.values().numel()
    values = x.values() * weights.repeat_interleave(lengths, output_size=n_values)
    return compressed(x.crow_indices(), x.col_indices(), values, x.shape)


@torch.compiler.disable
def multiplied(x: Tensor, factors: Tensor) -> Tensor:
    """Return the counts of a minibatch times ``factors``, with unchanged totals; CSR if ``x`` is.

    ``factors`` are dense and positive, ``(n_cells, n_features)``.
    """
    before = totals(x)
    if is_compressed(x):
        lengths, n_values = x.crow_indices().diff().long(), x.values().numel()
        row = torch.arange(len(x)).repeat_interleave(lengths, output_size=n_values)
        values = x.values() * factors[row, x.col_indices().long()]
        x = compressed(x.crow_indices(), x.col_indices(), values, x.shape)
    else:
        x = x * factors
    ratio = before / totals(x).clamp_min(SMALLEST_LIBRARY)
    return scaled(x, ratio.squeeze(-1))


def parts_of(x: Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return row pointers, columns and values of a minibatch, as the compiled loops read them."""
    if not is_compressed(x):
        x = x.to_sparse_csr()
    return x.crow_indices().numpy(), x.col_indices().numpy(), x.values().numpy()
