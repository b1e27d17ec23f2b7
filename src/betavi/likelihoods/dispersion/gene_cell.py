"""One dispersion per gene and cell."""

from __future__ import annotations

from torch import Tensor, nn

from betavi.likelihoods.dispersion._base import Dispersion, DispersionSizes


class GeneCellDispersion(Dispersion):
    """One value per gene and cell, decoded like the mean.

    Examples
    --------
    >>> import torch
    >>> from betavi.likelihoods import DISPERSIONS, DispersionSizes
    >>> dispersion = DISPERSIONS["gene-cell"](8, 20, DispersionSizes(1, 1))
    >>> dispersion(torch.ones(5, 8), torch.zeros(5, 1, dtype=torch.long), None).shape
    torch.Size([5, 20])
    """

    def __init__(self, n_hidden: int, n_features: int, sizes: DispersionSizes) -> None:
        super().__init__(n_hidden, n_features, sizes)
        self.log_theta = nn.Linear(n_hidden, n_features)

    def forward(self, h: Tensor, batch: Tensor, label: Tensor | None) -> Tensor:
        return self.log_theta(h)

    def start_at(self, log_theta: Tensor) -> None:
        """Set the bias. The weights keep their random start."""
        self.log_theta.bias.copy_(log_theta)
