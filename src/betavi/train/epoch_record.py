"""Losses and β of the steps of an epoch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from betavi.train import processes

if TYPE_CHECKING:
    from lightning.pytorch import Trainer
    from scvi.module.base import LossOutput
    from torch import Tensor


class EpochRecord:
    """Sums of the losses and the β of an epoch, collected without waiting for the device.

    scvi-tools' metrics take milliseconds of every step.
    """

    def __init__(self) -> None:
        # sums of loss, distortion and rate over cells, and the number of cells, by part of the cells
        self._sums: dict[str, Tensor] = {}
        self._betas: list[Any] = []

    def add_beta(self, beta: Any) -> None:
        """Add the β of a step, or the geometric mean of its drawn β."""
        self._betas.append(beta)

    def forget_betas(self) -> None:
        """Discard the β of steps whose weights are discarded."""
        self._betas.clear()

    def take_betas(self) -> list[float]:
        """Return the β of the steps since the last call."""
        betas, self._betas = self._betas, []
        return [*map(float, betas)]

    def gather_betas(self, trainer: Trainer) -> None:
        """Collect the β of all processes, which draw their own."""
        drawn = processes.gathered(trainer, self.take_betas())
        self._betas = [beta for betas in drawn for beta in betas]

    def add_losses(self, part: str, losses: LossOutput) -> None:
        """Add the losses of a minibatch of training or of held-out cells."""
        n_cells = losses.n_obs_minibatch
        loss = losses.loss.detach()
        sums = (loss * n_cells, losses.reconstruction_loss_sum, losses.kl_local_sum)
        new = torch.stack([*sums, loss.new_tensor(n_cells)]).detach()
        self._sums[part] = self._sums[part] + new if part in self._sums else new

    def take_means(self, part: str, trainer: Trainer) -> dict[str, Tensor]:
        """Return the means over the cells of all processes, under scvi-tools' names.

        The result is empty without minibatches.
        """
        if part not in self._sums:
            return {}
        sums = processes.summed(trainer, self._sums.pop(part))
        loss, distortion, rate = sums[:3] / sums[3]
        means = {"elbo": distortion + rate, "reconstruction_loss": distortion, "kl_local": rate}
        # a global KL would be of parameters with a posterior, which our modules do not have
        means["kl_global"] = torch.zeros_like(rate)
        return {f"{part}_loss": loss} | {f"{name}_{part}": mean for name, mean in means.items()}


def beta_of(betas: list[float], is_fixed: bool) -> float:
    """Return the last β, or the geometric mean of drawn β."""
    return betas[-1] if is_fixed else float(np.exp(np.mean(np.log(betas))))
