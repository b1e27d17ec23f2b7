"""One dispersion per gene."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from betavi.likelihoods.dispersion._base import Dispersion, DispersionSizes


class GeneDispersion(Dispersion):
    """One value per gene.

    Examples
    --------
    >>> from betavi.likelihoods import DISPERSIONS, DispersionSizes
    >>> DISPERSIONS["gene"](8, 20, DispersionSizes(2, 3)).log_theta.shape
    torch.Size([20])
    """

    def __init__(self, n_hidden: int, n_features: int, sizes: DispersionSizes) -> None:
        super().__init__(n_hidden, n_features, sizes)
        self.log_theta = nn.Parameter(torch.zeros(n_features))

    def forward(self, h: Tensor, batch: Tensor, label: Tensor | None) -> Tensor:
        return self.log_theta

    def start_at(self, log_theta: Tensor) -> None:
        self.log_theta.copy_(log_theta)
