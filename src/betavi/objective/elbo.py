r"""Rate and distortion, the two terms of the evidence lower bound.

.. math:: \log p(x) \ge E_{q(z | x)} \log p(x | z) - KL(q(z | x) \| p(z)) = -(D + R)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch.distributions import kl_divergence

from betavi.kernels import dense
from betavi.likelihoods import Deferred

if TYPE_CHECKING:
    from torch import Tensor
    from torch.distributions import Distribution


def log_density(p: Distribution, u: Tensor) -> Tensor:
    """Return the log density of each cell's u, whether or not p factorises over its last axis.

    Parameters
    ----------
    p
        A distribution over the last axis of ``u``.
    u
        Latent positions, ``(..., n_cells, n_latent)``.

    Returns
    -------
    Nats, ``(..., n_cells)``.

    Examples
    --------
    >>> import torch
    >>> from torch.distributions import Uniform
    >>> from betavi.objective import log_density
    >>> log_density(Uniform(torch.zeros(1, 2), torch.ones(1, 2)), torch.full((1, 2), 0.5))
    tensor([0.])
    """
    nats: Tensor = p.log_prob(u)
    return nats if p.event_shape else nats.sum(dim=-1)


def rates(q: Distribution, p: Distribution, u: Tensor) -> Tensor:
    """Return KL(q, p) of each dimension, or of all together where it is no sum over them.

    Exact where there is a closed form. Otherwise log q(u) - log p(u) at a draw u of q, which is
    unbiased, and so is its gradient.

    Parameters
    ----------
    q, p
        Posterior and prior of shape ``(n_cells, n_latent)`` or broadcastable; q factorises.
    u
        A draw of q, ``(..., n_cells, n_latent)``, which is used only without a closed form.

    Returns
    -------
    Nats, ``(n_cells, n_latent)``, or ``(..., n_cells, 1)`` without a closed form.

    References
    ----------
    Kingma & Welling (2014), Auto-encoding variational Bayes. Tomczak & Welling (2018), VAE with a
    VampPrior.

    Examples
    --------
    >>> import torch
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
    >>> import torch
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
    px
        The likelihood, of shape ``(..., n_cells, n_features)``.
    x
        Data, ``(n_cells, n_features)``, dense or CSR.
    present
        Which cells were measured, boolean, ``(n_cells, 1)``; all if None. The distortion of the
        others is zero, and so is its gradient.

    Returns
    -------
    Distortions, ``(..., n_cells)``.

    References
    ----------
    Alemi et al. (2018), Fixing a broken ELBO.

    Examples
    --------
    >>> import torch
    >>> from torch.distributions import Poisson
    >>> from betavi.objective import distortion
    >>> distortion(Poisson(torch.ones(1, 3)), torch.zeros(1, 3))
    tensor([3.])
    """
    nats = px.nats(x) if isinstance(px, Deferred) else -px.log_prob(dense(x)).sum(dim=-1)
    return nats if present is None else nats.where(present.squeeze(-1), 0.0)
