"""One dispersion per gene and batch."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from betavi.likelihoods.dispersion._base import Dispersion, DispersionSizes


class GeneBatchDispersion(Dispersion):
    """One value per gene and batch.

    Examples
    --------
    >>> from betavi.likelihoods import DISPERSIONS, DispersionSizes
    >>> DISPERSIONS["gene-batch"](8, 20, DispersionSizes(n_batch=2, n_labels=1)).log_theta.shape
    torch.Size([20, 2])
    """

    per_batch = ("log_theta",)

    def __init__(self, n_hidden: int, n_features: int, sizes: DispersionSizes) -> None:
        super().__init__(n_hidden, n_features, sizes)
        self.log_theta = nn.Parameter(torch.zeros(n_features, sizes.n_batch))

    def forward(self, h: Tensor, batch: Tensor, label: Tensor | None) -> Tensor:
        return self.log_theta.t()[batch.squeeze(-1)]

    def start_at(self, log_theta: Tensor) -> None:
        self.log_theta.copy_(log_theta[:, None])
