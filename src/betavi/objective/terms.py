r"""Terms of the loss: distortion, rate, and constraints on the rate.

.. math:: \log p(x) \ge E_{q(z | x)} \log p(x | z) - KL(q(z | x) \| p(z)) = -(D + R)

.. math:: \mathrm{loss} = D + \beta \, c(R)

with :math:`c(R) = R` for the β-VAE (Higgins et al., 2017). Constraints are about the mean rate of a
minibatch, and are written per cell, so that β may differ by cell.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.distributions import kl_divergence

from betavi.kernels import dense
from betavi.likelihoods import Deferred

if TYPE_CHECKING:
    from torch import Tensor
    from torch.distributions import Distribution

CELLS_OF_ONE_BETA = 16
"""Number of neighbours in the order of β that share free bits, where cells differ in β."""


def log_density(p: Distribution, u: Tensor) -> Tensor:
    """Return the log density of each cell's u, whether or not p factorises over its last axis.

    Parameters
    ----------
    p, u
        A distribution, and positions on its last axis, ``(..., n_cells, n_latent)``.

    Returns
    -------
    Nats, ``(..., n_cells)``.

    Examples
    --------
    >>> from torch.distributions import Uniform
    >>> from betavi.objective import log_density
    >>> log_density(Uniform(torch.zeros(1, 2), torch.ones(1, 2)), torch.full((1, 2), 0.5))
    tensor([0.])
    """
    nats: Tensor = p.log_prob(u)
    return nats if p.event_shape else nats.sum(dim=-1)


def rates(q: Distribution, p: Distribution, u: Tensor) -> Tensor:
    """Return KL(q, p) of each dimension, or the total where it is not a sum over dimensions.

    Exact if there is a closed form. Otherwise log q(u) - log p(u) at a draw u of q, which is
    unbiased, and so is its gradient.

    Parameters
    ----------
    q, p
        Posterior and prior of shape ``(n_cells, n_latent)`` or broadcastable; q factorises.
    u
        A draw of q, ``(..., n_cells, n_latent)``, used only without a closed form.

    Returns
    -------
    Nats, ``(n_cells, n_latent)``, or ``(..., n_cells, 1)`` without a closed form.

    References
    ----------
    Kingma & Welling (2014), Auto-encoding variational Bayes.

    Examples
    --------
    >>> from torch.distributions import Normal
    >>> from betavi.objective import rates
    >>> q = Normal(torch.ones(1, 2), 1.0)
    >>> rates(q, Normal(torch.zeros(1, 2), 1.0), q.rsample())
    tensor([[0.5000, 0.5000]])
    """
    try:
        return kl_divergence(q, p)
    except NotImplementedError:
        return (log_density(q, u) - log_density(p, u)).unsqueeze(-1)


def rate(q: Distribution, p: Distribution, u: Tensor) -> Tensor:
    """Return KL(q, p) of each cell: the sum of :func:`rates`.

    Parameters
    ----------
    q, p, u
        See :func:`rates`.

    Returns
    -------
    Nats, ``(n_cells,)``, or ``(..., n_cells)`` without a closed form.

    Examples
    --------
    >>> from torch.distributions import Normal
    >>> from betavi.objective import rate
    >>> q = Normal(torch.ones(1, 2), 1.0)
    >>> rate(q, Normal(torch.zeros(1, 2), 1.0), q.rsample())
    tensor([1.])
    """
    return rates(q, p, u).sum(dim=-1)


def distortion(px: Distribution | Deferred, x: Tensor, present: Tensor | None = None) -> Tensor:
    """Return the negative log-likelihood of each cell, summed over its features, in nats.

    Parameters
    ----------
    px, x
        The likelihood, ``(..., n_cells, n_features)``, and data, ``(n_cells, n_features)``, dense
        or CSR.
    present
        Mask of the cells that were measured, ``(n_cells, 1)``; all if None. The distortion of the
        others is zero, and so is its gradient.

    Returns
    -------
    Distortions, ``(..., n_cells)``.

    References
    ----------
    Alemi et al. (2018), Fixing a broken ELBO.

    Examples
    --------
    >>> from torch.distributions import Poisson
    >>> from betavi.objective import distortion
    >>> distortion(Poisson(torch.ones(1, 3)), torch.zeros(1, 3))
    tensor([3.])
    """
    nats = px.nats(x) if isinstance(px, Deferred) else -px.log_prob(dense(x)).sum(dim=-1)
    return nats if present is None else nats.where(present.squeeze(-1), 0.0)


def free_bits(rates: Tensor, nats: float) -> Tensor:
    r"""Return the rate of each cell, with dimensions below a threshold counted as the threshold.

    Averaged over the minibatch, :math:`\sum_j \max(\lambda, \frac1n \sum_i R_{ij})`: the rate of a
    dimension below the threshold is not reduced further, so that no dimension has to collapse.

    Parameters
    ----------
    rates
        As of :func:`rates`, ``(n_cells, n_latent)`` or ``(n_cells, 1)``.
    nats
        Threshold of each column, for its average over the minibatch.

    Returns
    -------
    Nats, ``(n_cells,)``.

    References
    ----------
    Kingma et al. (2016), Improved variational inference with inverse autoregressive flow, eq. 15.

    Examples
    --------
    >>> from betavi.objective import free_bits
    >>> free_bits(torch.tensor([[0.0, 3.0], [0.2, 1.0]]), 0.5)
    tensor([3.5000, 1.5000])
    """
    is_above = rates.mean(dim=0) > nats
    return rates.where(is_above, nats).sum(dim=-1)


def off_capacity(rate: Tensor, capacity: float) -> Tensor:
    r"""Return the distance of the minibatch's rate from its capacity, shared out over its cells.

    Averaged over the minibatch, :math:`|\frac1n \sum_i R_i - C|`.

    Parameters
    ----------
    rate
        Rate of each cell, ``(n_cells,)``.
    capacity
        Target of the mean rate, nats per cell; a schedule may raise it during training.

    Returns
    -------
    Nats, ``(n_cells,)``.

    References
    ----------
    Burgess et al. (2018), Understanding disentangling in β-VAE.

    Examples
    --------
    >>> from betavi.objective import off_capacity
    >>> off_capacity(torch.tensor([3.0, 4.0]), 5.0)
    tensor([2., 1.])
    """
    return (rate - capacity) * (rate.mean() - capacity).detach().sign()


def constrained(
    rates: Tensor, nats: float = 0.0, capacity: float | None = None, order: Tensor | None = None
) -> Tensor:
    """Return the term that β weighs: the rate, or a constraint on it.

    Parameters
    ----------
    rates, nats
        See :func:`free_bits`; none at 0.
    capacity
        See :func:`off_capacity`; none if None.
    order
        Indices that sort the cells by β, where they differ in it. Free bits are then averaged over
        cells of similar β: cells with a low β have a high rate, which would lift the average of all.

    Returns
    -------
    Nats, ``(n_cells,)``.

    Examples
    --------
    >>> from betavi.objective import constrained
    >>> constrained(torch.tensor([[0.0, 3.0], [0.2, 1.0]]))
    tensor([3.0000, 1.2000])
    """
    if not nats:
        rate = rates.sum(dim=-1)
    elif order is None:
        rate = free_bits(rates, nats)
    else:
        groups = rates[order].tensor_split(max(1, len(rates) // CELLS_OF_ONE_BETA))
        rate = torch.cat([free_bits(group, nats) for group in groups])[order.argsort()]
    return rate if capacity is None else off_capacity(rate, capacity)
