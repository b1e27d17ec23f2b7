"""Interface of dispersions."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from torch import nn

if TYPE_CHECKING:
    from torch import Tensor


class DispersionSizes(NamedTuple):
    """Numbers of categories that a dispersion may depend on.

    Parameters
    ----------
    n_batch, n_labels
        Numbers of batches and labels.

    Examples
    --------
    >>> from betavi.likelihoods import DISPERSIONS, DispersionSizes
    >>> DISPERSIONS["gene-batch"](8, 20, DispersionSizes(n_batch=2, n_labels=1)).log_theta.shape
    torch.Size([20, 2])
    """

    n_batch: int
    n_labels: int


class Dispersion(nn.Module, ABC):
    """Log inverse dispersion of each gene.

    Parameters
    ----------
    n_hidden
        Width of the last hidden layer.
    n_features
        Number of genes.
    sizes
        Numbers of batches and labels.

    References
    ----------
    Gayoso et al. (2022), A Python library for probabilistic analysis of single-cell omics data.

    Examples
    --------
    >>> import torch
    >>> from betavi.likelihoods import DISPERSIONS, DispersionSizes
    >>> dispersion = DISPERSIONS["gene"](8, 3, DispersionSizes(1, 1))
    >>> with torch.no_grad():
    ...     dispersion.start_at(torch.tensor([0.0, 1.0, 2.0]))
    >>> dispersion(torch.ones(5, 8), torch.zeros(5, 1, dtype=torch.long), None).tolist()
    [0.0, 1.0, 2.0]
    """

    per_batch: ClassVar[tuple[str, ...]] = ()
    """Names of parameters with a column for each batch."""

    @abstractmethod
    def __init__(self, n_hidden: int, n_features: int, sizes: DispersionSizes) -> None:
        super().__init__()

    @abstractmethod
    def forward(self, h: Tensor, batch: Tensor, label: Tensor | None) -> Tensor:
        """Return log theta, broadcastable to ``(..., n_cells, n_features)``."""

    @abstractmethod
    def start_at(self, log_theta: Tensor) -> None:
        """Start from one value per feature, ``(n_features,)``, the same for every cell."""
