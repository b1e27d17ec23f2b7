"""Dispersions: a value per gene, or per gene and batch, label or cell."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn


class DispersionSizes(NamedTuple):
    """Sizes of the covariates that a dispersion may depend on.

    Parameters
    ----------
    n_batch, n_labels
        Number of batches and of labels.

    Examples
    --------
    >>> from betavi.likelihoods import DISPERSIONS, DispersionSizes
    >>> DISPERSIONS["gene-batch"](8, 20, DispersionSizes(n_batch=2, n_labels=1)).log_theta.shape
    torch.Size([20, 2])
    """

    n_batch: int
    n_labels: int


class Dispersion(nn.Module, ABC):
    """Log of the inverse dispersion of each gene.

    Parameters
    ----------
    n_hidden
        Width of the decoder's last hidden layer.
    n_features
        Number of genes.
    sizes
        Number of batches and labels.

    Reference: Gayoso et al. (2022), A Python library for probabilistic analysis of single-cell
    omics data.

    Examples
    --------
    >>> from betavi.likelihoods import DISPERSIONS, DispersionSizes
    >>> dispersion = DISPERSIONS["gene"](8, 3, DispersionSizes(1, 1))
    >>> with torch.no_grad():
    ...     dispersion.start_at(torch.tensor([0.0, 1.0, 2.0]))
    >>> dispersion(torch.ones(5, 8), torch.zeros(5, 1, dtype=torch.long), None).tolist()
    [0.0, 1.0, 2.0]
    """

    per_batch: ClassVar[tuple[str, ...]] = ()
    """Names of parameters that have a column for each batch."""

    @abstractmethod
    def __init__(self, n_hidden: int, n_features: int, sizes: DispersionSizes) -> None:
        super().__init__()

    @abstractmethod
    def forward(self, h: Tensor, batch: Tensor, label: Tensor | None) -> Tensor:
        """Return log theta, broadcastable to ``(..., n_cells, n_features)``."""

    @abstractmethod
    def start_at(self, log_theta: Tensor) -> None:
        """Start from one value per feature, ``(n_features,)``, for every cell."""


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


class GeneBatchDispersion(Dispersion):
    """One value per gene and batch.

    Examples
    --------
    >>> from betavi.likelihoods import DISPERSIONS, DispersionSizes
    >>> DISPERSIONS["gene-batch"](8, 20, DispersionSizes(2, 3)).log_theta.shape
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


class GeneLabelDispersion(Dispersion):
    """One value per gene and label.

    Examples
    --------
    >>> from betavi.likelihoods import DISPERSIONS, DispersionSizes
    >>> DISPERSIONS["gene-label"](8, 20, DispersionSizes(2, 3)).log_theta.shape
    torch.Size([20, 3])
    """

    def __init__(self, n_hidden: int, n_features: int, sizes: DispersionSizes) -> None:
        super().__init__(n_hidden, n_features, sizes)
        self.log_theta = nn.Parameter(torch.zeros(n_features, sizes.n_labels))
        if sizes.n_labels < 2:
            warnings.warn(
                "dispersion='gene-label' with one label is dispersion='gene'. Name the labels with "
                "setup_anndata(..., labels_key=...).",
                UserWarning,
                stacklevel=2,
            )

    def forward(self, h: Tensor, batch: Tensor, label: Tensor | None) -> Tensor:
        if label is None:
            raise ValueError(
                "dispersion='gene-label' needs each cell's label, and this minibatch has none."
            )
        return self.log_theta.t()[label.squeeze(-1)]

    def start_at(self, log_theta: Tensor) -> None:
        self.log_theta.copy_(log_theta[:, None])


class GeneCellDispersion(Dispersion):
    """One value per gene and cell, decoded like the mean.

    Examples
    --------
    >>> from betavi.likelihoods import DISPERSIONS, DispersionSizes
    >>> dispersion = DISPERSIONS["gene-cell"](8, 20, DispersionSizes(1, 1))
    >>> dispersion(torch.ones(5, 8), torch.zeros(5, 1, dtype=torch.long), None).shape
    torch.Size([5, 20])
    """

    def __init__(self, n_hidden: int, n_features: int, sizes: DispersionSizes) -> None:
        super().__init__(n_hidden, n_features, sizes)
        self.log_theta = nn.Linear(n_hidden, n_features)

    def forward(self, h: Tensor, batch: Tensor, label: Tensor | None) -> Tensor:
        out: Tensor = self.log_theta(h)
        return out

    def start_at(self, log_theta: Tensor) -> None:
        """Set the bias; the weights stay as drawn."""
        self.log_theta.bias.copy_(log_theta)


DISPERSIONS: dict[str, type[Dispersion]] = {
    "gene": GeneDispersion,
    "gene-batch": GeneBatchDispersion,
    "gene-label": GeneLabelDispersion,
    "gene-cell": GeneCellDispersion,
}
"""Dispersions by the name a user gives, ``dispersion=``."""
