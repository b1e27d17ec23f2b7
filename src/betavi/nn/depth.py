"""Limit on the influence of very deep cells, such as aggregates, bulk samples and plate cells."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from betavi.kernels import plain, totals
from betavi.kernels.sparse import scaled


class DepthLimit(nn.Module):
    """Scaling of cells whose total is above a limit, and their weight in the loss.

    Gradients grow with a cell's total. Without a limit, one aggregate of all cells determines the
    statistics of batch normalisation and the step size of Adam, and ruins the model for all cells.
    A cell with w times the largest total enters the encoder as counts / w. Its distortion has the
    weight 1 / w in the loss. Until :meth:`start_at`, the limit is infinite.
    """

    largest_total: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("largest_total", torch.tensor(float("inf")))

    def _load_from_state_dict(
        self, state_dict: dict[str, Tensor], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        # models that were saved before there was a limit
        state_dict.setdefault(f"{prefix}largest_total", torch.tensor(float("inf")))
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def start_at(self, largest_total: float) -> None:
        """Set the limit."""
        self.largest_total.fill_(largest_total)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return counts within the limit, ``(n_cells, n_features)``, and weights, ``(n_cells,)``."""
        weights = (self.largest_total / totals(x)).clamp(max=1).squeeze(-1)
        is_within = plain.waits_for_sizes(x) and not (weights < 1).any()
        return (x if is_within else scaled(x, weights)), weights
