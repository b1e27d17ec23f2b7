r"""Rate and distortion, the two terms of the evidence lower bound.

.. math:: \log p(x) \ge E_{q(z | x)} \log p(x | z) - KL(q(z | x) \| p(z)) = -(D + R)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch.distributions import kl_divergence

if TYPE_CHECKING:
    from torch import Tensor
    from torch.distributions import Distribution


def rate(q: Distribution, p: Distribution) -> Tensor:
    """Return KL(q, p) summed over the last axis, in nats per cell.

    Parameters
    ----------
    q, p
        Posterior and prior, factorised, of shape ``(n_cells, n_latent)`` or broadcastable.

    Returns
    -------
    Rates, ``(n_cells,)``. Kingma & Welling (2014), Auto-encoding variational Bayes.

    Examples
    --------
    >>> import torch
    >>> from torch.distributions import Normal
    >>> from betavi.objective import rate
    >>> rate(Normal(torch.ones(1, 2), 1.0), Normal(torch.zeros(1, 2), 1.0))
    tensor([1.])
    """
    return kl_divergence(q, p).sum(dim=-1)


def distortion(px: Distribution, x: Tensor, present: Tensor | None = None) -> Tensor:
    """Return the negative log-likelihood of each cell, summed over its features, in nats.

    Parameters
    ----------
    px
        The likelihood, of shape ``(..., n_cells, n_features)``.
    x
        Data, ``(n_cells, n_features)``.
    present
        Which cells were measured, boolean, ``(n_cells, 1)``; all if None. The distortion of the
        others is zero, and so is its gradient.

    Returns
    -------
    Distortions, ``(..., n_cells)``. Alemi et al. (2018), Fixing a broken ELBO.

    Examples
    --------
    >>> import torch
    >>> from torch.distributions import Poisson
    >>> from betavi.objective import distortion
    >>> distortion(Poisson(torch.ones(1, 3)), torch.zeros(1, 3))
    tensor([3.])
    """
    nats = -px.log_prob(x).sum(dim=-1)
    return nats if present is None else nats.where(present.squeeze(-1), 0.0)
