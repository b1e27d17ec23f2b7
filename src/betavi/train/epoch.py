"""What is recorded of an epoch, at next to no cost in its steps."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from scvi.module.base import LossOutput
    from torch import Tensor


class EpochTotals:
    """Sums over the cells of an epoch, from which scvi-tools' means of it are made.

    scvi-tools' own metrics take milliseconds of every step.
    """

    def __init__(self) -> None:
        self.n_cells = 0
        self._sums: Tensor | float = 0.0

    def add(self, losses: LossOutput) -> None:
        """Add a minibatch."""
        n_cells = losses.n_obs_minibatch
        sums = (losses.loss * n_cells, losses.reconstruction_loss_sum, losses.kl_local_sum)
        self._sums = self._sums + torch.stack(sums).detach()
        self.n_cells += n_cells

    def means(self) -> dict[str, Tensor]:
        """Return means over cells by scvi-tools' names, in nats."""
        assert isinstance(self._sums, torch.Tensor)
        loss, distortion, rate = self._sums / self.n_cells
        return {
            "train_loss": loss,
            "elbo_train": distortion + rate,
            "reconstruction_loss_train": distortion,
            "kl_local_train": rate,
            # no module of ours has parameters with a posterior
            "kl_global_train": torch.zeros_like(rate),
        }
