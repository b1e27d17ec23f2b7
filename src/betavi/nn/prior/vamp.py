"""VampPrior: mixture of the posteriors of learned cells."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from betavi.nn.prior._base import Prior, mixture

if TYPE_CHECKING:
    from torch.distributions import MixtureSameFamily, Normal


class VampPrior(Prior):
    """Equal mixture of the posteriors of learned cells. The rate (KL) is estimated at a draw of z.

    Reference: Tomczak & Welling (2018), VAE with a VampPrior.

    Examples
    --------
    >>> import torch
    >>> from torch.distributions import Normal
    >>> from betavi.nn import PRIORS
    >>> learned = Normal(torch.tensor([[-1.0], [1.0]]), 1.0)
    >>> p = PRIORS["vamp"](n_latent=1, n_components=2)(learned)
    >>> round(p.mean.item(), 3), round(p.variance.item(), 3)
    (0.0, 2.0)
    """

    reads_pseudo_cells = True
    equal: Tensor

    def __init__(self, n_latent: int, n_components: int) -> None:
        super().__init__(n_latent, n_components)
        self.register_buffer("equal", torch.zeros(n_components), persistent=False)

    def forward(self, pseudo_posteriors: Normal | None) -> MixtureSameFamily:
        assert pseudo_posteriors is not None
        return mixture(self.equal, pseudo_posteriors)
