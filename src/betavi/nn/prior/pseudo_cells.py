"""Learned cells, whose posteriors are the components of a prior."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Mapping


class PseudoCells(nn.Module):
    """Learned inputs of the encoders, with fixed covariates.

    ``widths`` has the number of features by modality. ``n_categorical`` does not count the batch.

    Reference: Tomczak & Welling (2018), VAE with a VampPrior.
    """

    batch: Tensor
    continuous: Tensor
    categorical: Tensor

    def __init__(
        self, n_cells: int, widths: Mapping[str, int], n_continuous: int, n_categorical: int
    ) -> None:
        super().__init__()
        self.h = nn.ParameterDict(
            {name: nn.Parameter(torch.rand(n_cells, width)) for name, width in widths.items()}
        )
        for name in widths:
            self.register_buffer(_present_key(name), torch.ones(n_cells, 1, dtype=torch.bool))
        self.register_buffer("batch", torch.zeros(n_cells, 1, dtype=torch.long))
        self.register_buffer("continuous", torch.zeros(n_cells, n_continuous))
        self.register_buffer("categorical", torch.zeros(n_cells, n_categorical, dtype=torch.long))

    @property
    def present(self) -> dict[str, Tensor]:
        """Masks of the learned cells that have each modality, ``(n_cells, 1)``."""
        return {name: getattr(self, _present_key(name)) for name in self.h}

    @torch.no_grad()
    def start_at(
        self,
        h: Mapping[str, Tensor],
        batch: Tensor,
        continuous: Tensor | None,
        categorical: Tensor | None,
        present: Mapping[str, Tensor],
    ) -> None:
        """Start from measured cells: the encoders' inputs by modality, and the covariates."""
        for name, value in h.items():
            self.h[name].copy_(value)
        for name, mask in present.items():
            getattr(self, _present_key(name)).copy_(mask)
        self.batch.copy_(batch)
        if continuous is not None:
            self.continuous.copy_(continuous)
        if categorical is not None:
            self.categorical.copy_(categorical)


def _present_key(modality: str) -> str:
    return f"has_{modality}"
