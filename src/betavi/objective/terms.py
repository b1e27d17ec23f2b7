r"""Terms of the loss: distortion, rate, and constraints on the rate.

.. math:: \log p(x) \ge E_{q(z | x)} \log p(x | z) - KL(q(z | x) \| p(z)) = -(D + R)

.. math:: \mathrm{loss} = D + \beta \, c(R)

with :math:`c(R) = R` for the β-VAE (Higgins et al., 2017). Constraints apply to the mean rate of a
minibatch. They are written per cell, because β may differ between cells.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.distributions import Normal, kl_divergence

from betavi.kernels import dense
from betavi.likelihoods._base import Deferred

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor
    from torch.distributions import Distribution

    CellMean = Callable[[Tensor], Tensor]
    """Function from ``(n_cells, ...)`` to the mean over cells."""

CELLS_OF_ONE_BETA = 16
"""Number of cells of similar β that share free bits, if β differs between cells."""


def log_density(p: Distribution, u: Tensor) -> Tensor:
    """Return the log density of each cell's position, also if p does not factorise over dimensions.

    Parameters
    ----------
    p
        Distribution.
    u
        Positions, ``(..., n_cells, n_latent)``.

    Returns
    -------
    Log densities in nats, ``(..., n_cells)``.

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
    """Return the rate KL(q, p) of each dimension.

    The rate is exact if there is a closed form. Otherwise it is estimated by log q(u) - log p(u) at a
    sample u of q, as a total over dimensions if these depend on each other in p. This estimate and its
    gradient are unbiased.

    Parameters
    ----------
    q
        Posterior, ``(n_cells, n_latent)``, which factorises over dimensions.
    p
        Prior, ``(n_cells, n_latent)`` or broadcastable.
    u
        Sample of q, ``(..., n_cells, n_latent)``. Only used without a closed form.

    Returns
    -------
    Rates in nats, ``(n_cells, n_latent)``. Without a closed form, ``(..., n_cells, n_latent)`` or
    ``(..., n_cells, 1)``.

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
        if not p.event_shape and isinstance(q, Normal):
            return q.log_prob(u) - p.log_prob(u)
        return (log_density(q, u) - log_density(p, u)).unsqueeze(-1)


def rate(q: Distribution, p: Distribution, u: Tensor) -> Tensor:
    """Return the rate KL(q, p) of each cell, the sum of :func:`rates`.

    Parameters
    ----------
    q, p, u
        See :func:`rates`.

    Returns
    -------
    Rates in nats, ``(n_cells,)``, or ``(..., n_cells)`` without a closed form.

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
    """Return the negative log-likelihood of each cell, summed over its features.

    Parameters
    ----------
    px
        Likelihood, ``(..., n_cells, n_features)``.
    x
        Data, dense or CSR, ``(n_cells, n_features)``.
    present
        Mask of measured cells, ``(n_cells, 1)``. Other cells have zero distortion and zero
        gradient. If None, all cells were measured.

    Returns
    -------
    Distortions in nats, ``(..., n_cells)``.

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


def mean_of_cells(values: Tensor) -> Tensor:
    """Return the mean over the cells of a minibatch, ``(...)`` for values ``(n_cells, ...)``."""
    return values.mean(dim=0)


def free_bits(rates: Tensor, nats: float, cell_mean: CellMean = mean_of_cells) -> Tensor:
    r"""Return each cell's rate, in which dimensions below a threshold count as the threshold.

    The average over the minibatch is :math:`\sum_j \max(\lambda, \frac1n \sum_i R_{ij})`. The rate
    of a dimension below the threshold is not reduced further, so no dimension has to collapse.

    Parameters
    ----------
    rates
        Result of :func:`rates`.
    nats
        Threshold of the average of each column over the minibatch.
    cell_mean
        Function that averages over cells. Several processes average over all their minibatches.

    Returns
    -------
    Rates in nats, ``(n_cells,)``.

    References
    ----------
    Kingma et al. (2016), Improved variational inference with inverse autoregressive flow, eq. 15.

    Examples
    --------
    >>> from betavi.objective import free_bits
    >>> free_bits(torch.tensor([[0.0, 3.0], [0.2, 1.0]]), 0.5)
    tensor([3.5000, 1.5000])
    """
    is_above = cell_mean(rates.detach()) > nats
    return rates.where(is_above, nats).sum(dim=-1)


def off_capacity(rate: Tensor, capacity: float, cell_mean: CellMean = mean_of_cells) -> Tensor:
    r"""Return the distance of the minibatch's mean rate from a capacity, as one term per cell.

    The average over the minibatch is :math:`|\frac1n \sum_i R_i - C|`.

    Parameters
    ----------
    rate
        Rate of each cell, ``(n_cells,)``.
    capacity
        Target of the mean rate. A schedule may raise this target during training.
    cell_mean
        See :func:`free_bits`.

    Returns
    -------
    Terms in nats, ``(n_cells,)``.

    References
    ----------
    Burgess et al. (2018), Understanding disentangling in β-VAE.

    Examples
    --------
    >>> from betavi.objective import off_capacity
    >>> off_capacity(torch.tensor([3.0, 4.0]), 5.0)
    tensor([2., 1.])
    """
    return (rate - capacity) * (cell_mean(rate.detach()) - capacity).sign()


def constrained(
    rates: Tensor,
    nats: float = 0.0,
    capacity: float | None = None,
    order: Tensor | None = None,
    cell_mean: CellMean = mean_of_cells,
) -> Tensor:
    """Return the term that β weights: the rate, or a constraint on it.

    Parameters
    ----------
    rates
        See :func:`free_bits`.
    nats
        See :func:`free_bits`. 0 means no free bits.
    capacity
        See :func:`off_capacity`. If None, no capacity.
    order
        Only if β differs between cells: indices that sort the cells by β. Rates are then averaged
        over cells of similar β, because the high rates of cells with a low β would raise a common
        average.
    cell_mean
        See :func:`free_bits`. Cells of similar β are averaged in each process on its own.

    Returns
    -------
    Terms in nats, ``(n_cells,)``.

    Examples
    --------
    >>> from betavi.objective import constrained
    >>> constrained(torch.tensor([[0.0, 3.0], [0.2, 1.0]]))
    tensor([3.0000, 1.2000])
    """
    if not nats:
        rate = rates.sum(dim=-1)
    elif order is None:
        rate = free_bits(rates, nats, cell_mean)
    else:
        groups = rates[order].tensor_split(max(1, len(rates) // CELLS_OF_ONE_BETA))
        rate = torch.cat([free_bits(group, nats) for group in groups])[order.argsort()]
    return rate if capacity is None else off_capacity(rate, capacity, cell_mean)
