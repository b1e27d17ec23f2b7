"""Callback that stops a run when its loss is not finite, and keeps the last finite weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from lightning.pytorch.callbacks import Callback

from betavi._blocks import ENCODED_CELLS
from betavi.nn.networks import evaluating
from betavi.train import processes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lightning.pytorch import Trainer
    from torch import Tensor

    from betavi.data import DataSplitter
    from betavi.module import MultimodalVAE
    from betavi.train.plan import TrainingPlan

STEPS_PER_CHECK = 50
"""Steps between checks on a device or in a process that waits for a check. Not tuned."""

N_SUSPECTS = 3
"""Number of cells that a message names."""


class NonFiniteLossError(RuntimeError):
    """The loss of a training step was NaN or infinite."""


class RunGuard(Callback):
    """Ends a run whose loss is NaN or infinite, with the weights at the end of an earlier epoch.

    If the user interrupts a run, the β of its last step is recorded.
    """

    def __init__(self) -> None:
        self.weights: dict[str, Tensor] = {}
        self.epoch = 0

    def on_train_start(self, trainer: Trainer, plan: TrainingPlan) -> None:
        """Keep a copy of the initial weights."""
        self.on_train_epoch_start(trainer, plan)

    def on_train_epoch_start(self, trainer: Trainer, plan: TrainingPlan) -> None:
        """Keep a copy of finite weights."""
        parameters = plan.module.parameters()
        if not self.weights or all(part.isfinite().all() for part in parameters):
            state = plan.module.state_dict()
            self.weights = {name: value.detach().clone() for name, value in state.items()}
            self.epoch = trainer.current_epoch

    def on_train_batch_end(
        self,
        trainer: Trainer,
        plan: TrainingPlan,
        outputs: Any,
        _batch: Any,
        batch_idx: int,
    ) -> None:
        """Raise a NonFiniteLossError, after the weights are restored."""
        waits = plan.device.type != "cpu" or trainer.world_size > 1
        if waits and batch_idx % STEPS_PER_CHECK and not trainer.is_last_batch:
            return
        # a loss that is not finite in any process is not finite in the sum
        loss = processes.summed(trainer, outputs["loss"])
        if not loss.isfinite():
            plan.module.load_state_dict(self.weights)
            plan.forget_steps()
            raise NonFiniteLossError(
                f"The loss became {loss.item()} in step {trainer.global_step} (epoch "
                f"{trainer.current_epoch + 1})."
            )

    def on_train_end(self, trainer: Trainer, plan: TrainingPlan) -> None:
        """Raise a NonFiniteLossError if the last step ruined the weights, after no later loss."""
        if not all(part.isfinite().all() for part in plan.module.parameters()):
            plan.module.load_state_dict(self.weights)
            raise NonFiniteLossError(
                f"The weights are not finite after the last step ({trainer.global_step})."
            )

    def on_exception(self, _trainer: Trainer, plan: TrainingPlan, error: BaseException) -> None:
        """Record the β of the last step of an interrupted run, whose weights are used."""
        if isinstance(error, KeyboardInterrupt):
            plan.record_beta()


def suspects(module: MultimodalVAE, splitter: DataSplitter) -> str:
    """Return a sentence with the training cells that have the largest distortion."""
    if getattr(splitter, "adata_manager", None) is None:
        return "Check the counts and covariates of the cells."
    names = splitter.adata_manager.adata.obs_names[splitter.train_idx]
    nats = np.concatenate([*_distortions(module, splitter)])
    # a loss that is not a number comes first
    order = np.argsort(-np.nan_to_num(nats, nan=np.inf))[:N_SUSPECTS]
    shown = ", ".join(f"{names[cell]!r} ({nats[cell]:.3g})" for cell in order)
    return (
        f"The cells with the largest distortion in nats are {shown}; the median is "
        f"{np.nanmedian(nats):.3g}. Check the counts and covariates of these cells."
    )


@torch.inference_mode()
def _distortions(module: MultimodalVAE, splitter: DataSplitter) -> Iterator[np.ndarray]:
    """Yield the distortions of the training cells, in blocks."""
    cells = splitter.adata_manager.create_torch_dataset(splitter.train_idx)
    with evaluating(module):
        for start in range(0, len(cells), ENCODED_CELLS):
            tensors = cells[np.arange(start, min(start + ENCODED_CELLS, len(cells)))]
            loss = module(tensors)[-1]
            yield sum(nats.cpu().numpy() for nats in loss.reconstruction_loss.values())
