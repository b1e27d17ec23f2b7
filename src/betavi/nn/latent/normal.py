"""Normal latent variable."""

from __future__ import annotations

from betavi.nn.latent._base import Latent


class NormalLatent(Latent):
    """z with a normal posterior.

    Reference: Kingma & Welling (2014), Auto-encoding variational Bayes.

    Examples
    --------
    >>> import torch
    >>> from torch.distributions import Normal
    >>> from betavi.nn import LATENTS
    >>> fused = Normal(torch.zeros(3, 2), 1.0)
    >>> LATENTS["normal"]().posterior(fused) is fused
    True
    """
