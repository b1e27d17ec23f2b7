"""One dispersion per gene and label."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor, nn

from betavi.likelihoods.dispersion._base import Dispersion, DispersionSizes


class GeneLabelDispersion(Dispersion):
    """One value per gene and label.

    Examples
    --------
    >>> from betavi.likelihoods import DISPERSIONS, DispersionSizes
    >>> DISPERSIONS["gene-label"](8, 20, DispersionSizes(n_batch=1, n_labels=3)).log_theta.shape
    torch.Size([20, 3])
    """

    def __init__(self, n_hidden: int, n_features: int, sizes: DispersionSizes) -> None:
        super().__init__(n_hidden, n_features, sizes)
        self.log_theta = nn.Parameter(torch.zeros(n_features, sizes.n_labels))
        if sizes.n_labels < 2:
            warnings.warn(
                "dispersion='gene-label' with one label is the same as dispersion='gene'. Use "
                "dispersion='gene'. Or, register labels: setup_anndata(..., labels_key=...)",
                UserWarning,
                stacklevel=2,
            )

    def forward(self, h: Tensor, batch: Tensor, label: Tensor | None) -> Tensor:
        if label is None:
            raise ValueError(
                "dispersion='gene-label' needs each cell's label, but the minibatch has no "
                "labels. Register labels: setup_anndata(..., labels_key=...)"
            )
        return self.log_theta.t()[label.squeeze(-1)]

    def start_at(self, log_theta: Tensor) -> None:
        self.log_theta.copy_(log_theta[:, None])
