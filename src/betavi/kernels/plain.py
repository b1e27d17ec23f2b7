r"""Log-probabilities of counts, with special functions evaluated only for nonzero counts.

For zeros, the negative binomial needs no gamma function: :math:`\log p(0) = -\theta \log(1 + \mu /
\theta)`. For other counts, large terms cancel to a few nats, and are summed in double precision.

Values and gradients agree with :func:`scvi.distributions.NegativeBinomial.log_prob` and its
relatives, including the ``1e-8`` that keeps their logarithms finite. Inputs have at least one
dimension, means from 1e-8 to 1e6, ``theta`` from 1e-4 to 1e8, logits within 50 of zero, and counts
up to 1e6. The forward pass also computes the derivatives, which share its intermediate values.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import softplus

if TYPE_CHECKING:
    from collections.abc import Callable

EPS = 1e-8
"""Constant that scvi-tools adds inside its logarithms."""

_NEARLY_MINUS_ONE = -0.99
"""Argument below which log1p loses digits here. Set by floating-point precision."""


def _wide(x: Tensor) -> Tensor:
    # Metal has no double precision
    return x if x.device.type == "mps" else x.double()


def _nb_at_nonzeros(x: Tensor, mu: Tensor, theta: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return log NB(x; mu, theta) and its derivatives by mu and theta, for nonzero ``x``."""
    x, mu, theta = _wide(x), _wide(mu), _wide(theta)
    a = theta + EPS
    log_ratio = torch.log1p(mu / a)
    value = (
        x * (torch.log(mu + EPS) - torch.log(a + mu))
        - theta * log_ratio
        + torch.lgamma(x + theta)
        - torch.lgamma(theta)
        - torch.lgamma(x + 1)
    )
    d_mu = x / (mu + EPS) - (x + theta) / (a + mu)
    slope = torch.digamma(x + theta) - torch.digamma(theta)
    d_theta = slope - log_ratio + theta / a - (x + theta) / (a + mu)
    return value, d_mu, d_theta


def _nb_at_zeros(mu: Tensor, theta: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return log NB(0; mu, theta) and its derivatives by mu and theta."""
    a = theta + EPS
    log_ratio = torch.log1p(mu / a)
    total = a + mu
    return -theta * log_ratio, -theta / total, (theta / a) * (mu / total) - log_ratio


def _exchange(
    where: Tensor, wholes: tuple[Tensor, ...], function: Callable[..., Any], *parameters: Tensor
) -> tuple[Tensor, ...]:
    """Replace the values of tensors at the selected places by the function's results.

    On a CPU, only these places are computed. On a GPU, computing all is faster than counting them.
    """
    if waits_for_sizes(where):
        at = where.nonzero(as_tuple=True)
        for whole, part in zip(wholes, function(*(x[at] for x in parameters)), strict=True):
            whole[at] = part.to(whole.dtype)
        return wholes
    parts = function(*parameters)
    return tuple(
        part.to(whole.dtype).where(where, whole) for whole, part in zip(wholes, parts, strict=True)
    )


def waits_for_sizes(x: Tensor) -> bool:
    """Return True where the size of a result is known at once. A GPU would have to wait for it."""
    return x.device.type == "cpu"


class _Precomputed(torch.autograd.Function):
    """Function whose forward pass saves one derivative per differentiable parameter."""

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Multiply the incoming gradient by the derivatives. Counts have no gradient."""
        return (None, *(grad * derivative for derivative in ctx.saved_tensors))


class _NegativeBinomial(_Precomputed):
    @staticmethod
    def forward(ctx: Any, x: Tensor, mu: Tensor, theta: Tensor) -> Tensor:
        at_zeros = _nb_at_zeros(mu, theta)
        value, *derivatives = _exchange(x != 0, at_zeros, _nb_at_nonzeros, x, mu, theta)
        ctx.save_for_backward(*derivatives)
        return value


def _inflate(log_zero: Tensor, logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    r"""Return :math:`\log(\pi + (1 - \pi) p_0)` and its derivatives by :math:`\log p_0` and logits.

    The form :math:`\log(1 + (1 - \pi)(p_0 - 1))` is exact where the counts alone explain the zero.
    Near an argument of minus one, scvi-tools' difference of two softplus is exact.
    """
    not_inflated = torch.sigmoid(-logits)
    change = not_inflated * torch.expm1(log_zero)
    is_pole = change < _NEARLY_MINUS_ONE
    (value,) = _exchange(is_pole, (torch.log1p(change),), _inflate_at_pole, log_zero, logits)
    # share of the zeros explained by the counts: (1 - pi) p0 / (pi + (1 - pi) p0)
    explained = torch.sigmoid(log_zero - logits)
    return value, explained, -torch.sigmoid(logits - log_zero) * change


def _inflate_at_pole(log_zero: Tensor, logits: Tensor) -> tuple[Tensor]:
    return (softplus(log_zero - logits) - softplus(-logits),)


def _zinb_at_nonzeros(x: Tensor, mu: Tensor, theta: Tensor, logits: Tensor) -> tuple[Tensor, ...]:
    """Return log ZINB(x; mu, theta, logits) and its derivatives, for nonzero ``x``."""
    value, *derivatives = _nb_at_nonzeros(x, mu, theta)
    logits = _wide(logits)
    return value - softplus(logits), *derivatives, -torch.sigmoid(logits)


class _ZeroInflatedNegativeBinomial(_Precomputed):
    @staticmethod
    def forward(ctx: Any, x: Tensor, mu: Tensor, theta: Tensor, logits: Tensor) -> Tensor:
        log_zero, d_mu, d_theta = _nb_at_zeros(mu, theta)
        value, explained, d_logits = _inflate(log_zero, logits)
        at_zeros = value, d_mu * explained, d_theta * explained, d_logits
        value, *derivatives = _exchange(x != 0, at_zeros, _zinb_at_nonzeros, x, mu, theta, logits)
        ctx.save_for_backward(*derivatives)
        return value


def _poisson_at_nonzeros(x: Tensor, rate: Tensor) -> tuple[Tensor, Tensor]:
    # a softmax can underflow to a rate of zero, with an infinite loss for nonzero counts
    rate = _wide(rate.clamp_min(torch.finfo(rate.dtype).tiny))
    x = _wide(x)
    return x * rate.log() - rate - torch.lgamma(x + 1), x / rate - 1


class _Poisson(_Precomputed):
    @staticmethod
    def forward(ctx: Any, x: Tensor, rate: Tensor) -> Tensor:
        at_zeros = -rate, torch.full_like(rate, -1.0)
        value, derivative = _exchange(x != 0, at_zeros, _poisson_at_nonzeros, x, rate)
        ctx.save_for_backward(derivative)
        return value


def _apply(function: type[_Precomputed], x: Tensor, *parameters: Tensor) -> Tensor:
    counts, *expanded = torch.broadcast_tensors(x, *parameters)
    return function.apply(counts, *expanded)  # type: ignore[no-untyped-call]  # torch publishes no type of it


def nb_log_prob(x: Tensor, mu: Tensor, theta: Tensor) -> Tensor:
    """Log-probability of counts under a negative binomial, in nats.

    Parameters
    ----------
    x
        Counts. They have no gradient.
    mu
        Means of at least 0, ``(..., n_cells, n_genes)``.
    theta
        Inverse dispersions. The variance is ``mu + mu**2 / theta``.

    Returns
    -------
    Log-probabilities, of the broadcast shape.

    Examples
    --------
    >>> from betavi.kernels.plain import nb_log_prob
    >>> nb_log_prob(torch.tensor([0.0, 2.0]), torch.tensor([1.0, 1.0]), torch.tensor([1.0, 1.0]))
    tensor([-0.6931, -2.0794])
    """
    return _apply(_NegativeBinomial, x, mu, theta)


def zinb_log_prob(x: Tensor, mu: Tensor, theta: Tensor, logits: Tensor) -> Tensor:
    """Log-probability of counts under a zero-inflated negative binomial, in nats.

    Parameters
    ----------
    x, theta
        See :func:`nb_log_prob`.
    mu
        Means before inflation.
    logits
        Log-odds that a count was replaced by zero.

    Returns
    -------
    Log-probabilities, of the broadcast shape.

    Examples
    --------
    >>> from betavi.kernels.plain import zinb_log_prob
    >>> one = torch.ones(1)
    >>> zinb_log_prob(0 * one, one, one, 0 * one)
    tensor([-0.2877])
    """
    return _apply(_ZeroInflatedNegativeBinomial, x, mu, theta, logits)


def poisson_log_prob(x: Tensor, rate: Tensor) -> Tensor:
    """Log-probability of counts under a Poisson distribution, in nats.

    Parameters
    ----------
    x
        Counts. They have no gradient.
    rate
        Means of at least 0, ``(..., n_cells, n_genes)``.

    Returns
    -------
    Log-probabilities, of the broadcast shape.

    Examples
    --------
    >>> from betavi.kernels.plain import poisson_log_prob
    >>> poisson_log_prob(torch.tensor([0.0, 2.0]), torch.tensor([1.0, 1.0]))
    tensor([-1.0000, -1.6931])
    """
    return _apply(_Poisson, x, rate)
