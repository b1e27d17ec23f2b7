r"""Log-probabilities of counts, with special functions evaluated on the nonzero counts only.

Five to ten per cent of a count matrix is nonzero. For a zero the negative binomial needs no gamma
function at all, :math:`\log p(0) = -\theta \log(1 + \mu / \theta)`, so that ``lgamma`` and
``digamma`` are computed for the nonzero counts alone. There, terms of the size of
:math:`x \log \mu` and :math:`\log \Gamma(\theta)` cancel down to a few nats: they are summed in
double precision, whatever the precision of the tensors.

Values and gradients are those of :func:`scvi.distributions.NegativeBinomial.log_prob` and its kin,
including the ``1e-8`` that keeps their logarithms finite. They are made for means from 1e-8 to 1e6,
``theta`` from 1e-4 to 1e8, logits within 50 of zero and counts up to 1e6, of at least one dimension.

Every gradient with respect to a parameter is computed in the forward pass, where its ingredients
are at hand, and multiplied by the incoming gradient in the backward pass.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import softplus

EPS = 1e-8
"""What scvi-tools adds inside its logarithms."""

_NEARLY_MINUS_ONE = -0.99


def _wide(x: Tensor) -> Tensor:
    # Metal has no double precision; single is the best there is.
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
    d_theta = (
        torch.digamma(x + theta)
        - torch.digamma(theta)
        - log_ratio
        + theta / a
        - (x + theta) / (a + mu)
    )
    return value, d_mu, d_theta


def _nb_at_zeros(mu: Tensor, theta: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return log NB(0; mu, theta) and its derivatives by mu and theta."""
    a = theta + EPS
    log_ratio = torch.log1p(mu / a)
    total = a + mu
    return -theta * log_ratio, -theta / total, (theta / a) * (mu / total) - log_ratio


class _Precomputed(torch.autograd.Function):
    """Base of functions whose forward pass leaves one derivative per differentiable parameter."""

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Multiply the incoming gradient by the derivatives; the counts have none."""
        return (None, *(grad * derivative for derivative in ctx.saved_tensors))


class _NegativeBinomial(_Precomputed):
    @staticmethod
    def forward(ctx: Any, x: Tensor, mu: Tensor, theta: Tensor) -> Tensor:
        out = _nb_at_zeros(mu, theta)
        nonzero = x.nonzero(as_tuple=True)
        at_nonzeros = _nb_at_nonzeros(x[nonzero], mu[nonzero], theta[nonzero])
        for whole, part in zip(out, at_nonzeros, strict=True):
            whole[nonzero] = part.to(whole.dtype)
        value, *derivatives = out
        ctx.save_for_backward(*derivatives)
        return value


def _inflate(log_zero: Tensor, logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    r"""Return :math:`\log(\pi + (1 - \pi) p_0)` and its derivatives by :math:`\log p_0` and logits.

    It is computed as :math:`\log(1 + (1 - \pi)(p_0 - 1))`, exact where the count model itself
    explains the zero, except near the pole at minus one, where the difference of two softplus,
    which is scvi-tools' form, is exact.
    """
    kept = torch.sigmoid(-logits)
    change = kept * torch.expm1(log_zero)
    value = torch.log1p(change)
    pole = (change < _NEARLY_MINUS_ONE).nonzero(as_tuple=True)
    value[pole] = softplus(log_zero[pole] - logits[pole]) - softplus(-logits[pole])
    # the share of the zeros that the counts explain, (1 - pi) p0 / (pi + (1 - pi) p0); its
    # complement times the change is (1 - pi) less that share, without their cancellation
    explained = torch.sigmoid(log_zero - logits)
    return value, explained, -torch.sigmoid(logits - log_zero) * change


class _ZeroInflatedNegativeBinomial(_Precomputed):
    @staticmethod
    def forward(ctx: Any, x: Tensor, mu: Tensor, theta: Tensor, logits: Tensor) -> Tensor:
        log_zero, d_mu, d_theta = _nb_at_zeros(mu, theta)
        value, explained, d_logits = _inflate(log_zero, logits)
        d_mu *= explained
        d_theta *= explained

        nonzero = x.nonzero(as_tuple=True)
        logits_at = _wide(logits[nonzero])
        nb, nb_d_mu, nb_d_theta = _nb_at_nonzeros(x[nonzero], mu[nonzero], theta[nonzero])
        value[nonzero] = (nb - softplus(logits_at)).to(value.dtype)
        d_mu[nonzero] = nb_d_mu.to(value.dtype)
        d_theta[nonzero] = nb_d_theta.to(value.dtype)
        d_logits[nonzero] = -torch.sigmoid(logits_at).to(value.dtype)
        ctx.save_for_backward(d_mu, d_theta, d_logits)
        return value


class _Poisson(_Precomputed):
    @staticmethod
    def forward(ctx: Any, x: Tensor, rate: Tensor) -> Tensor:
        value, derivative = -rate, torch.full_like(rate, -1.0)
        nonzero = x.nonzero(as_tuple=True)
        # a softmax can underflow to a rate of zero, which no nonzero count survives
        count = _wide(x[nonzero])
        at = _wide(rate[nonzero].clamp_min(torch.finfo(rate.dtype).tiny))
        value[nonzero] = (count * at.log() - at - torch.lgamma(count + 1)).to(value.dtype)
        derivative[nonzero] = (count / at - 1).to(value.dtype)
        ctx.save_for_backward(derivative)
        return value


def _apply(function: type[_Precomputed], x: Tensor, *parameters: Tensor) -> Tensor:
    counts, *expanded = torch.broadcast_tensors(x, *parameters)
    value: Tensor = function.apply(counts, *expanded)  # type: ignore[no-untyped-call]  # torch publishes no type of it
    return value


def nb_log_prob(x: Tensor, mu: Tensor, theta: Tensor) -> Tensor:
    """Log-probability of counts under a negative binomial, in nats.

    Parameters
    ----------
    x
        Counts, broadcastable to ``mu``. Not differentiated.
    mu
        Means, ``(..., n_cells, n_genes)``, from 0 on.
    theta
        Inverse dispersions, broadcastable to ``mu``; the variance is ``mu + mu**2 / theta``.

    Returns
    -------
    Log-probabilities, of the broadcast shape.

    Examples
    --------
    >>> import torch
    >>> from betavi.kernels.plain import nb_log_prob
    >>> nb_log_prob(torch.tensor([0.0, 2.0]), torch.tensor([1.0, 1.0]), torch.tensor([1.0, 1.0]))
    tensor([-0.6931, -2.0794])
    """
    return _apply(_NegativeBinomial, x, mu, theta)


def zinb_log_prob(x: Tensor, mu: Tensor, theta: Tensor, logits: Tensor) -> Tensor:
    """Log-probability of counts under a zero-inflated negative binomial, in nats.

    Parameters
    ----------
    x
        Counts, broadcastable to ``mu``. Not differentiated.
    mu
        Means of the negative binomial, ``(..., n_cells, n_genes)``, before inflation.
    theta
        Inverse dispersions, broadcastable to ``mu``.
    logits
        Log-odds that a count was replaced by zero, broadcastable to ``mu``.

    Returns
    -------
    Log-probabilities, of the broadcast shape.

    Examples
    --------
    >>> import torch
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
        Counts, broadcastable to ``rate``. Not differentiated.
    rate
        Means, ``(..., n_cells, n_genes)``, from 0 on.

    Returns
    -------
    Log-probabilities, of the broadcast shape.

    Examples
    --------
    >>> import torch
    >>> from betavi.kernels.plain import poisson_log_prob
    >>> poisson_log_prob(torch.tensor([0.0, 2.0]), torch.tensor([1.0, 1.0]))
    tensor([-1.0000, -1.6931])
    """
    return _apply(_Poisson, x, rate)
