r"""What may stand in the place of the rate in the loss.

.. math:: \mathrm{loss} = D + \beta \, c(R)

with :math:`c(R) = R` for the β-VAE (Higgins et al., 2017). All rates are in nats. The constraints
are about the mean rate of a minibatch, and are written per cell, so that β may differ by cell.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

CELLS_OF_ONE_BETA = 16
"""Of a minibatch whose cells differ in β, how many count as having about the same."""


def free_bits(rates: Tensor, nats: float) -> Tensor:
    r"""Return the rate of each cell, with dimensions below a threshold counted as the threshold.

    Averaged over the minibatch, :math:`\sum_j \max(\lambda, \frac1n \sum_i R_{ij})`: a dimension
    below the threshold is not pressed further, so that none has to be given up.

    Parameters
    ----------
    rates
        Rate of each cell and dimension, ``(n_cells, n_latent)``; where the rate is no sum over
        dimensions, their total, ``(n_cells, 1)``.
    nats
        The threshold of each column, for its average over the minibatch.

    Returns
    -------
    Nats, ``(n_cells,)``.

    References
    ----------
    Kingma et al. (2016), Improved variational inference with inverse autoregressive flow, equation
    15.

    Examples
    --------
    >>> import torch
    >>> from betavi.objective import free_bits
    >>> free_bits(torch.tensor([[0.0, 3.0], [0.2, 1.0]]), 0.5)
    tensor([3.5000, 1.5000])
    """
    pressed = rates.mean(dim=0) > nats
    return rates.where(pressed, nats).sum(dim=-1)


def off_capacity(rate: Tensor, capacity: float) -> Tensor:
    r"""Return how far each cell takes the minibatch's rate from the capacity it is to have.

    Averaged over the minibatch, :math:`|\frac1n \sum_i R_i - C|`.

    Parameters
    ----------
    rate
        Rate of each cell, ``(n_cells,)``.
    capacity
        Nats per cell; a schedule lets it grow during training.

    Returns
    -------
    Nats, ``(n_cells,)``.

    References
    ----------
    Burgess et al. (2018), Understanding disentangling in β-VAE.

    Examples
    --------
    >>> import torch
    >>> from betavi.objective import off_capacity
    >>> off_capacity(torch.tensor([3.0, 4.0]), 5.0)
    tensor([2., 1.])
    """
    return (rate - capacity) * (rate.mean() - capacity).detach().sign()


def free_bits_by_group(rates: Tensor, nats: float, order: Tensor) -> Tensor:
    """Return :func:`free_bits` of groups of cells that are next to each other in an order.

    Cells with a low β have a high rate, and would lift the average of all above any threshold.

    Parameters
    ----------
    rates, nats
        See :func:`free_bits`.
    order
        Indices that sort the cells by β, ``(n_cells,)``.

    Returns
    -------
    Nats, ``(n_cells,)``.

    Examples
    --------
    >>> import torch
    >>> from betavi.objective.constraints import free_bits_by_group
    >>> free_bits_by_group(torch.tensor([[0.1], [3.0]]), 0.5, torch.tensor([1, 0]))
    tensor([0.1000, 3.0000])
    """
    groups = rates[order].tensor_split(max(1, len(rates) // CELLS_OF_ONE_BETA))
    return torch.cat([free_bits(group, nats) for group in groups])[order.argsort()]


def constrained(
    rates: Tensor,
    nats: float = 0.0,
    capacity: float | None = None,
    order: Tensor | None = None,
) -> Tensor:
    """Return what β weighs: the rate, or what a constraint makes of it.

    Parameters
    ----------
    rates
        See :func:`free_bits`.
    nats
        The threshold of :func:`free_bits`; none at 0.
    capacity
        See :func:`off_capacity`; none if None.
    order
        Indices that sort the cells by β, where they differ in it.

    Returns
    -------
    Nats, ``(n_cells,)``.

    Examples
    --------
    >>> import torch
    >>> from betavi.objective import constrained
    >>> constrained(torch.tensor([[0.0, 3.0], [0.2, 1.0]]))
    tensor([3.0000, 1.2000])
    """
    if not nats:
        rate = rates.sum(dim=-1)
    elif order is None:
        rate = free_bits(rates, nats)
    else:
        rate = free_bits_by_group(rates, nats, order)
    return rate if capacity is None else off_capacity(rate, capacity)
