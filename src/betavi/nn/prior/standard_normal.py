"""Standard normal prior."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions import Normal

from betavi.nn.prior._base import Prior


class StandardNormal(Prior):
    """Independent standard normal dimensions, with an exact rate (KL divergence from the prior).

    Reference: Kingma & Welling (2014), Auto-encoding variational Bayes.

    Examples
    --------
    >>> from betavi.nn import StandardNormal
    >>> p = StandardNormal(n_latent=2, n_components=1)(None)
    >>> p.mean.tolist(), p.stddev.tolist()
    ([0.0, 0.0], [1.0, 1.0])
    """

    zero: Tensor

    def __init__(self, n_latent: int, n_components: int) -> None:
        super().__init__(n_latent, n_components)
        self.register_buffer("zero", torch.zeros(n_latent), persistent=False)

    def forward(self, pseudo_posteriors: Normal | None) -> Normal:
        return Normal(self.zero, torch.ones_like(self.zero), validate_args=False)
