"""Mixture of learned normal components."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.distributions import Normal

from betavi.nn.prior._base import Prior, mixture

if TYPE_CHECKING:
    from torch.distributions import MixtureSameFamily


class GaussianMixture(Prior):
    """Mixture of learned normal distributions. The rate (KL from the prior) is estimated at a draw.

    Reference: Dilokthanakul et al. (2016), Deep unsupervised clustering with Gaussian mixture VAEs.

    Examples
    --------
    >>> import torch
    >>> from betavi.nn import PRIORS
    >>> p = PRIORS["mixture"](n_latent=2, n_components=4)(None)
    >>> p.mixture_distribution.probs.tolist(), p.log_prob(torch.zeros(5, 2)).shape
    ([0.25, 0.25, 0.25, 0.25], torch.Size([5]))
    """

    def __init__(self, n_latent: int, n_components: int) -> None:
        super().__init__(n_latent, n_components)
        self.logits = nn.Parameter(torch.zeros(n_components))
        # components start apart, so that they do not all learn the same
        self.loc = nn.Parameter(torch.randn(n_components, n_latent))
        self.log_scale = nn.Parameter(torch.zeros(n_components, n_latent))

    def forward(self, pseudo_posteriors: Normal | None) -> MixtureSameFamily:
        return mixture(self.logits, Normal(self.loc, self.log_scale.exp(), validate_args=False))
