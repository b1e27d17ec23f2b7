"""Counts as they are stored: a minibatch in compressed rows, and what networks read of it."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from betavi.kernels.matmul import TransposedLinear
from betavi.kernels.threads import compiled, in_parts

if TYPE_CHECKING:
    import numpy as np

with warnings.catch_warnings():
    # torch says once in a process that its CSR tensors are in beta
    warnings.filterwarnings("ignore", message="Sparse CSR tensor support")
    torch.sparse_csr_tensor([0, 0], [], [], (1, 1), check_invariants=False)


def compressed(
    pointers: Tensor, columns: Tensor, values: Tensor, shape: torch.Size | tuple[int, ...]
) -> Tensor:
    """Return a matrix in compressed rows, whose parts are trusted to fit together.

    Parameters
    ----------
    pointers
        Where each row starts among the entries, and where the last ends, ``(n_rows + 1,)``.
    columns, values
        Of all entries, ``(n_entries,)``.
    shape
        Number of rows and columns.

    Returns
    -------
    A CSR tensor, ``shape``.

    Examples
    --------
    >>> import torch
    >>> from betavi.kernels import compressed
    >>> pointers, columns = torch.tensor([0, 1, 2]), torch.tensor([2, 0])
    >>> compressed(pointers, columns, torch.tensor([5.0, 1.0]), (2, 3)).to_dense().tolist()
    [[0.0, 0.0, 5.0], [1.0, 0.0, 0.0]]
    """
    return torch.sparse_csr_tensor(pointers, columns, values, shape, check_invariants=False)


def rows_of(
    starts: Tensor, lengths: Tensor, columns: Tensor, values: Tensor, n_columns: int
) -> Tensor:
    """Return some rows of a matrix on a CPU, compressed and in single precision.

    Parameters
    ----------
    starts, lengths
        Where each row starts among the entries, and how many it has, ``(n_rows,)``.
    columns, values
        Of all entries.
    n_columns
        Width of the matrix.

    Returns
    -------
    A CSR tensor, ``(n_rows, n_columns)``.

    Examples
    --------
    >>> import torch
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
    """Return whether a minibatch holds its nonzeros only.

    Parameters
    ----------
    x
        ``(n_cells, n_features)``, dense or CSR.

    Returns
    -------
    True of a CSR tensor.

    Examples
    --------
    >>> import torch
    >>> from betavi.kernels import is_compressed
    >>> x = torch.eye(2)
    >>> is_compressed(x), is_compressed(x.to_sparse_csr())
    (False, True)
    """
    return x.layout == torch.sparse_csr


@torch.compiler.disable
def dense(x: Tensor) -> Tensor:
    """Return a minibatch with its zeros.

    Parameters
    ----------
    x
        See :func:`is_compressed`.

    Returns
    -------
    ``(n_cells, n_features)``; a dense minibatch as it is.

    Examples
    --------
    >>> import torch
    >>> from betavi.kernels import dense
    >>> dense(torch.eye(2).to_sparse_csr()).tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """
    return x.to_dense() if is_compressed(x) else x


@torch.compiler.disable
def totals(x: Tensor) -> Tensor:
    """Return the sum of each row, ``(n_cells, 1)``, of counts ``(n_cells, n_features)``.

    Parameters
    ----------
    x
        See :func:`is_compressed`.

    Returns
    -------
    Counts of each cell.

    Examples
    --------
    >>> import torch
    >>> from betavi.kernels import totals
    >>> totals(torch.tensor([[1.0, 2.0], [0.0, 4.0]]).to_sparse_csr()).tolist()
    [[3.0], [4.0]]
    """
    if not is_compressed(x):
        return x.sum(dim=-1, keepdim=True)
    return torch.segment_reduce(x.values(), "sum", offsets=x.crow_indices().long())[:, None]


@torch.compiler.disable
def log1p(x: Tensor) -> Tensor:
    """Return log(1 + x), with as few entries as x has.

    Parameters
    ----------
    x
        See :func:`is_compressed`.

    Returns
    -------
    ``(n_cells, n_features)``; CSR if x is.

    Examples
    --------
    >>> import torch
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


MICROSECONDS = 0.0001
"""About what a multiplication takes."""


class _CompressedLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        assert compiled is not None
        by_gene = weight.detach().t().contiguous()
        out = bias.detach().expand(len(x), -1).clone()
        ctx.parts, ctx.shape = parts_of(x), by_gene.shape
        ctx.work = MICROSECONDS * len(ctx.parts[1]) * out.shape[1]
        in_parts(compiled.counts_times, len(x), ctx.work, *ctx.parts, by_gene.numpy(), out.numpy())
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor | None, Tensor | None]:
        """Return the gradients of the parameters; the counts have none."""
        assert compiled is not None
        _, of_weight, of_bias = ctx.needs_input_grad
        bias_grad = grad.sum(dim=0) if of_bias else None
        if not of_weight:
            return None, None, bias_grad
        # transposed counts are read by rows, too, and so is the gradient
        parts = compiled.by_gene(*ctx.parts, ctx.shape[0])
        out = grad.new_zeros(ctx.shape)
        arguments = *parts, grad.contiguous().numpy(), out.numpy()
        in_parts(compiled.counts_times, len(out), ctx.work, *arguments)
        return None, out.t(), bias_grad


class CountsLinear(TransposedLinear):
    """A linear layer that also reads compressed rows, of which it skips the zeros.

    Its weights lie gene after gene, so that those of one gene are read at once.

    Parameters
    ----------
    in_features, out_features
        Number of genes, and of units.

    Examples
    --------
    >>> import torch
    >>> from betavi.kernels import CountsLinear
    >>> layer, x = CountsLinear(4, 3), torch.tensor([[0.0, 2.0, 0.0, 1.0]])
    >>> torch.allclose(layer(x.to_sparse_csr()), layer(x), atol=1e-5)
    True
    """

    @torch.compiler.disable
    def forward(self, x: Tensor) -> Tensor:
        """Return ``(n_cells, out_features)``."""
        is_plain = x.device.type == "cpu" and self.weight.dtype == torch.float32
        if is_compressed(x) and compiled is not None and is_plain:
            out: Tensor = _CompressedLinear.apply(x, self.weight, self.bias)  # type: ignore[no-untyped-call]  # torch publishes no type of it
            return out
        return super().forward(dense(x))
