"""From a decoder's last layer to the distortion of each cell, in as few passes as there can be.

The output layers, the softmax, the library size and the likelihood are one operation: what the layers
return is overwritten by its own derivatives, which the backward pass multiplies by the weights.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from betavi.kernels.matmul import product, product_type
from betavi.kernels.plain import EPS
from betavi.kernels.sparse import parts_of
from betavi.kernels.threads import in_parts

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn


MICROSECONDS = 0.008
"""About what an entry takes, of whichever likelihood."""


class Heads(NamedTuple):
    """What a compiled likelihood reads of a decoder.

    Parameters
    ----------
    rows
        Its loop, of ``betavi.kernels.compiled``.
    layers
        The output layers, the one that a softmax is of first.
    log_theta
        Log inverse dispersion, ``(n_genes,)`` or ``(n_cells, n_genes)``, where there is one.

    Examples
    --------
    >>> import torch
    >>> from betavi.kernels import Heads, compiled
    >>> heads = Heads(compiled.nb_rows, (torch.nn.Linear(4, 3),), log_theta=torch.zeros(3))
    >>> len(heads.layers), heads.log_theta.exp().tolist()
    (1, [1.0, 1.0, 1.0])
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
        ctx.dtype = product_type()
        slopes = [product(h, weight.t(), ctx.dtype) for weight in weights]
        n_rows, n_genes = slopes[0].shape
        nats, size_slope = h.new_empty(n_rows), h.new_empty(n_rows)
        arguments = [
            part.detach().numpy() for pair in zip(slopes, biases, strict=True) for part in pair
        ]
        if log_theta is not None:
            theta = log_theta.detach().exp().reshape(-1, n_genes)
            arguments += [theta.numpy(), (theta + EPS).reciprocal().numpy()]
            theta_slope = h.new_empty(n_rows, n_genes)
        arguments += [
            log_size.detach().reshape(-1).double().numpy(),
            nats.numpy(),
            size_slope.numpy(),
        ]
        if log_theta is not None:
            arguments.append(theta_slope.numpy())
            slopes.append(theta_slope)
        work = MICROSECONDS * n_rows * n_genes
        in_parts(rows, n_rows, work, *parts_of(counts), *arguments)
        ctx.theta_shape = None if log_theta is None else log_theta.shape
        ctx.save_for_backward(h, size_slope, *weights, *slopes)
        return nats

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Weigh what the forward pass left of each cell by the gradient of its nats."""
        h, size_slope, *saved = ctx.saved_tensors
        weigh = -grad
        # nats are minus the log-probability, of which the derivatives are
        theta_grad = None
        if ctx.theta_shape is not None:
            theta_slope = saved.pop()
            if len(ctx.theta_shape) == 1:
                theta_grad = weigh @ theta_slope
            else:
                # of several draws of the same cells there may be one row for all
                theta_grad = (weigh[:, None] * theta_slope).view(-1, *ctx.theta_shape).sum(dim=0)
        weights, slopes = saved[: len(saved) // 2], saved[len(saved) // 2 :]
        weighted_h = weigh[:, None] * h
        h_grad = torch.zeros_like(h)
        layer_grads: list[Tensor | None] = []
        # after the other arguments of the forward pass, and each followed by its bias
        of_weights = ctx.needs_input_grad[5::2]
        for weight, slope, of_weight in zip(weights, slopes, of_weights, strict=True):
            h_grad += product(slope, weight, ctx.dtype)
            # transposed, as the weights lie
            by_h = product(weighted_h.t(), slope, ctx.dtype).t() if of_weight else None
            layer_grads += [by_h, weigh @ slope]
        h_grad *= weigh[:, None]
        return None, None, h_grad, (weigh * size_slope)[:, None], theta_grad, *layer_grads


@torch.compiler.disable
def head_nats(heads: Heads, counts: Tensor, h: Tensor, log_size: Tensor) -> Tensor:
    """Return the distortion of each cell, with the gradients of everything that it was made of.

    Parameters
    ----------
    heads
        The likelihood and the layers that decode it.
    counts
        CSR or dense, ``(n_cells, n_genes)``. Not differentiated.
    h
        The decoder's last hidden layer, ``(..., n_cells, n_hidden)``.
    log_size
        Log library sizes, ``(..., n_cells, 1)``.

    Returns
    -------
    Nats, ``(..., n_cells)``.

    Examples
    --------
    >>> import torch
    >>> from betavi.kernels import Heads, compiled, head_nats
    >>> layer = torch.nn.Linear(4, 3)
    >>> _ = torch.nn.init.zeros_(layer.weight), torch.nn.init.zeros_(layer.bias)
    >>> heads = Heads(compiled.poisson_rows, (layer,))
    >>> head_nats(heads, torch.zeros(1, 3), torch.ones(1, 4), torch.zeros(1, 1)).round()
    tensor([1.], grad_fn=<RoundBackward0>)
    """
    shape, h = h.shape[:-1], h.float()
    log_theta = None if heads.log_theta is None else heads.log_theta.float()
    sizes = log_size.float().expand(*shape, 1).reshape(-1, 1)
    layers = [part for layer in heads.layers for part in (layer.weight, layer.bias)]
    nats: Tensor = _HeadNats.apply(  # type: ignore[no-untyped-call]  # torch publishes no type of it
        heads.rows, counts, h.reshape(-1, h.shape[-1]), sizes, log_theta, *layers
    )
    return nats.view(shape)
