"""Products of dense matrices, by the library that is fastest at them on this processor."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear


@cache
def _other_library() -> Any:
    """Return oneDNN's product of a matrix and a transposed one, where it is the faster library.

    PyTorch multiplies with MKL, which takes half of the lanes of processors that are not Intel's.
    oneDNN comes with PyTorch too, which calls it from compiled graphs; single precision is no less
    single there.
    """
    try:
        from llvmlite.binding import get_host_cpu_name

        product = torch.ops.mkldnn._linear_pointwise
    except (ImportError, AttributeError):
        return None
    has_lanes = torch.backends.cpu.get_cpu_capability() == "AVX512"
    is_amd = get_host_cpu_name().startswith("znver")
    return product if has_lanes and is_amd and torch.backends.mkldnn.is_available() else None


def _is_for_it(a: Tensor) -> bool:
    is_plain = a.dtype == torch.float32 and a.device.type == "cpu" and a.ndim == 2 and a.numel() > 0
    may_be = bool(torch.backends.mkldnn.enabled) and not torch.compiler.is_compiling()
    return is_plain and may_be and _other_library() is not None


def product_type() -> torch.dtype | None:
    """Return the type that PyTorch was asked to multiply in, if it is not that of the tensors."""
    return torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else None


def product(a: Tensor, b: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Return ``a @ b``, of factors rounded to a type if there is one. Not differentiated.

    Fastest of an ``a`` whose rows lie in memory one after another, whichever way ``b`` lies.

    Parameters
    ----------
    a, b
        ``(n, k)`` and ``(k, m)``.
    dtype
        See :func:`product_type`.
    """
    if dtype is not None:
        return (a.to(dtype) @ b.to(dtype)).to(a.dtype)
    if not _is_for_it(a):
        return a @ b
    out: Tensor = _other_library()(a.contiguous(), b.t(), None, "none", [], "")
    return out


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return product(x, weight.t()).add_(bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Return gradients, that of the weights lying in memory as they do."""
        x, weight = ctx.saved_tensors
        # gradients are on here only if these gradients are themselves to be differentiated
        multiply = torch.matmul if torch.is_grad_enabled() else product
        of_x, of_weight, of_bias = ctx.needs_input_grad
        return (
            multiply(grad, weight) if of_x else None,
            multiply(x.t(), grad).t() if of_weight else None,
            grad.sum(dim=0) if of_bias else None,
        )


class TransposedLinear(torch.nn.Linear):
    """A linear layer whose weights lie in memory as ``(in_features, out_features)``.

    So do the gradients that cost least to compute, and an optimiser reads both in one pass.

    Parameters
    ----------
    in_features, out_features
        Number of units on both sides.

    Examples
    --------
    >>> from betavi.kernels import TransposedLinear
    >>> weight = TransposedLinear(4, 3).weight
    >>> weight.shape, weight.is_contiguous(), weight.t().is_contiguous()
    (torch.Size([3, 4]), False, True)
    """

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__(in_features, out_features)
        self.weight = torch.nn.Parameter(self.weight.detach().t().contiguous().t())

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(..., out_features)``."""
        # forward differentiation and vmap, of what is not trained, know no function of ours
        if self.training and _is_for_it(x) and product_type() is None:
            out: Tensor = _Linear.apply(x, self.weight, self.bias)  # type: ignore[no-untyped-call]  # torch publishes no type of it
            return out
        if torch.is_grad_enabled() or not _is_for_it(x):
            return linear(x, self.weight, self.bias)
        return product(x, self.weight.t()).add_(self.bias)
