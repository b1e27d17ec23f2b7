"""Linear layers, and the distortion of a minibatch, with hand-written gradients.

``head_nats`` combines a decoder's output layers, softmax, library size and likelihood in one
operation. Derivatives overwrite the layers' outputs, for the backward pass.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import linear

from betavi.kernels.plain import EPS
from betavi.kernels.sparse import compiled, dense, is_compressed, parts_of

if TYPE_CHECKING:
    from collections.abc import Callable


WIDE = ("znver5",)
"""Processors of AMD that compute 512 bits at once, by LLVM's name. For the generation before, Zen 4,
``benchmarks.ablation`` shows gains below 15 %."""


@cache
def _onednn_product() -> Any:
    """Return oneDNN's product of a matrix and a transposed matrix, if it is faster than PyTorch's.

    PyTorch multiplies with MKL, which uses half of the vector lanes of processors from AMD.
    """
    try:
        from llvmlite.binding import get_host_cpu_name

        product = torch.ops.mkldnn._linear_pointwise
    except (ImportError, AttributeError):
        return None
    has_lanes = torch.backends.cpu.get_cpu_capability() == "AVX512"
    is_wide = get_host_cpu_name() in WIDE
    return product if has_lanes and is_wide and torch.backends.mkldnn.is_available() else None


def _uses_onednn(a: Tensor) -> bool:
    is_plain = a.dtype == torch.float32 and a.device.type == "cpu" and a.ndim == 2 and a.numel() > 0
    may_be = bool(torch.backends.mkldnn.enabled) and not torch.compiler.is_compiling()
    return is_plain and may_be and _onednn_product() is not None


def _autocast_type() -> torch.dtype | None:
    return torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else None


def product(a: Tensor, b: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Return ``a @ b`` without gradients, with factors rounded to ``dtype`` if given.

    The product is fastest if the rows of ``a`` are contiguous. The memory layout of ``b`` does not
    matter.
    """
    if dtype is not None:
        return (a.to(dtype) @ b.to(dtype)).to(a.dtype)
    if not _uses_onednn(a):
        return a @ b
    return _onednn_product()(a.contiguous(), b.t(), None, "none", [], "")


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return product(x, weight.t()).add_(bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients. The weights' gradient has the weights' memory layout."""
        x, weight = ctx.saved_tensors
        # gradients are enabled here only for second derivatives
        multiply = torch.matmul if torch.is_grad_enabled() else product
        of_x, of_weight, of_bias = ctx.needs_input_grad
        return (
            multiply(grad, weight) if of_x else None,
            multiply(x.t(), grad).t() if of_weight else None,
            grad.sum(dim=0) if of_bias else None,
        )


class TransposedLinear(nn.Linear):
    """Linear layer with weights stored as ``(in_features, out_features)``.

    In this layout, gradients are cheapest to compute, and an optimiser reads weights and gradients
    in one pass.
    """

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__(in_features, out_features)
        self.weight = nn.Parameter(self.weight.detach().t().contiguous().t())

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(..., out_features)``."""
        # outside training, forward-mode derivatives and vmap do not support our function
        if self.training and _uses_onednn(x) and _autocast_type() is None:
            return _Linear.apply(x, self.weight, self.bias)  # type: ignore[no-untyped-call]  # torch publishes no type of it
        if torch.is_grad_enabled() or not _uses_onednn(x):
            return linear(x, self.weight, self.bias)
        return product(x, self.weight.t()).add_(self.bias)


class _CompressedLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        assert compiled is not None
        by_gene = weight.detach().t().contiguous()
        out = bias.detach().expand(len(x), -1).clone()
        ctx.parts, ctx.shape = parts_of(x), by_gene.shape
        compiled.counts_times(*ctx.parts, by_gene.numpy(), out.numpy())
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor | None, Tensor | None]:
        assert compiled is not None
        _, of_weight, of_bias = ctx.needs_input_grad
        bias_grad = grad.sum(dim=0) if of_bias else None
        if not of_weight:
            return None, None, bias_grad
        # transposed counts and the gradient are also read by rows
        parts = compiled.by_gene(*ctx.parts, ctx.shape[0])
        out = grad.new_zeros(ctx.shape)
        compiled.counts_times(*parts, grad.contiguous().numpy(), out.numpy())
        return None, out.t(), bias_grad


class CountsLinear(TransposedLinear):
    """Linear layer that also reads CSR tensors, and skips their zeros."""

    @torch.compiler.disable
    def forward(self, x: Tensor) -> Tensor:
        """Return ``(n_cells, out_features)``."""
        is_plain = x.device.type == "cpu" and self.weight.dtype == torch.float32
        if is_compressed(x) and compiled is not None and is_plain:
            return _CompressedLinear.apply(x, self.weight, self.bias)  # type: ignore[no-untyped-call]  # torch publishes no type of it
        return super().forward(dense(x))


class Heads(NamedTuple):
    """Output layers of a decoder, and the compiled loop of the likelihood.

    The first layer is the input of the softmax. ``log_theta`` is the log inverse dispersion,
    ``(n_genes,)`` or ``(n_cells, n_genes)``, or None.
    """

    rows: Callable[..., None]
    layers: tuple[nn.Linear, ...]
    log_theta: Tensor | None = None


class _HeadNats(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        rows: Callable[..., None],
        counts: Tensor,
        h: Tensor,
        log_size: Tensor,
        log_theta: Tensor | None,
        *layers: Tensor,
    ) -> Tensor:
        weights, biases = layers[::2], layers[1::2]
        ctx.dtype = _autocast_type()
        slopes = [product(h, weight.t(), ctx.dtype) for weight in weights]
        n_rows, n_genes = slopes[0].shape
        nats, size_slope = h.new_empty(n_rows), h.new_empty(n_rows)
        given = [part for pair in zip(slopes, biases, strict=True) for part in pair]
        filled = [nats, size_slope]
        if log_theta is not None:
            theta = log_theta.detach().exp().reshape(-1, n_genes)
            given += [theta, (theta + EPS).reciprocal()]
            filled.append(h.new_empty(n_rows, n_genes))
        given.append(log_size.reshape(-1).double())
        rows(*parts_of(counts), *(part.detach().numpy() for part in given + filled))
        ctx.theta_shape = None if log_theta is None else log_theta.shape
        ctx.save_for_backward(h, size_slope, *weights, *slopes, *filled[2:])
        return nats

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Weight each cell's derivatives from the forward pass by the gradient of its nats."""
        h, size_slope, *saved = ctx.saved_tensors
        weigh = -grad
        # the saved derivatives are derivatives of the log-probability, which is minus the nats
        theta_grad = None
        if ctx.theta_shape is not None:
            theta_slope = saved.pop()
            if len(ctx.theta_shape) == 1:
                theta_grad = weigh @ theta_slope
            else:
                # several draws of a cell may share a row of theta
                theta_grad = (weigh[:, None] * theta_slope).view(-1, *ctx.theta_shape).sum(dim=0)
        weights, slopes = saved[: len(saved) // 2], saved[len(saved) // 2 :]
        weighted_h = weigh[:, None] * h
        h_grad = torch.zeros_like(h)
        layer_grads: list[Tensor | None] = []
        # weights follow the five other arguments of the forward pass, each with its bias
        of_weights = ctx.needs_input_grad[5::2]
        for weight, slope, of_weight in zip(weights, slopes, of_weights, strict=True):
            h_grad += product(slope, weight, ctx.dtype)
            # transposed, like the weights in memory
            by_h = product(weighted_h.t(), slope, ctx.dtype).t() if of_weight else None
            layer_grads += [by_h, weigh @ slope]
        h_grad *= weigh[:, None]
        return None, None, h_grad, (weigh * size_slope)[:, None], theta_grad, *layer_grads


@torch.compiler.disable
def head_nats(heads: Heads, counts: Tensor, h: Tensor, log_size: Tensor) -> Tensor:
    """Return the distortion of each cell.

    Parameters
    ----------
    heads
        Output layers.
    counts
        Counts, CSR or dense, ``(n_cells, n_genes)``. Counts have no gradient.
    h
        Last hidden layer of the decoder, ``(..., n_cells, n_hidden)``.
    log_size
        Log library sizes or size factors, ``(..., n_cells, 1)``.

    Returns
    -------
    Distortion (negative log-likelihood) of each cell in nats, ``(..., n_cells)``.

    Examples
    --------
    >>> from betavi.kernels.layers import Heads, compiled, head_nats
    >>> heads = Heads(compiled.poisson_rows, (torch.nn.Linear(4, 3),))
    >>> head_nats(heads, torch.zeros(1, 3), torch.ones(1, 4), torch.zeros(1, 1)).round().tolist()
    [1.0]
    """
    shape, h = h.shape[:-1], h.float()
    log_theta = None if heads.log_theta is None else heads.log_theta.float()
    sizes = log_size.float().expand(*shape, 1).reshape(-1, 1)
    layers = [part for layer in heads.layers for part in (layer.weight, layer.bias)]
    nats: Tensor = _HeadNats.apply(  # type: ignore[no-untyped-call]  # torch publishes no type of it
        heads.rows, counts, h.reshape(-1, h.shape[-1]), sizes, log_theta, *layers
    )
    return nats.view(shape)
