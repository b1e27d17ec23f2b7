"""Independent dimensions, each with a learned mixture of normal distributions."""

from __future__ import annotations

import torch
from torch import nn
from torch.distributions import Categorical, MixtureSameFamily, Normal

from betavi.nn.prior._base import Prior

LOCS, SCALES = (0.0, 0.0, 2.0, -2.0), (0.5, 1.0, 1.0, 1.0)
"""Initial means and standard deviations: a narrow centre, a wide one, and both sides. Not tuned."""

SPREAD = 0.05
"""Standard deviation of the random differences between the initial means. Not tuned."""


class IndependentMixtures(Prior):
    """Product over dimensions of learned mixtures of four normal distributions.

    A standard normal prior is the same in every direction. This prior is not: dimensions can be sparse
    or skewed, so that axes cannot be rotated freely. ``n_components`` is ignored. The rate (KL from the
    prior) is estimated at a draw.

    Reference: Attias (1999), Independent factor analysis.

    Examples
    --------
    >>> from betavi.nn import PRIORS
    >>> p = PRIORS["independent"](n_latent=2, n_components=4)(None)
    >>> p.log_prob(torch.zeros(5, 2)).shape
    torch.Size([5, 2])
    """

    def __init__(self, n_latent: int, n_components: int) -> None:
        super().__init__(n_latent, n_components)
        loc = torch.tensor(LOCS).repeat(n_latent, 1)
        self.loc = nn.Parameter(loc + SPREAD * torch.randn_like(loc))
        self.log_scale = nn.Parameter(torch.tensor(SCALES).log().repeat(n_latent, 1))
        self.logits = nn.Parameter(torch.zeros_like(loc))

    def forward(self, pseudo_posteriors: Normal | None) -> MixtureSameFamily:
        weights = Categorical(logits=self.logits, validate_args=False)
        parts = Normal(self.loc, self.log_scale.exp(), validate_args=False)
        return MixtureSameFamily(weights, parts, validate_args=False)
