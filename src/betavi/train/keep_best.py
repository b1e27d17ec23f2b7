"""Callback that keeps the weights of the best epoch."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from lightning.pytorch.callbacks import Callback

from betavi.nn.networks import evaluating
from betavi.train import processes

if TYPE_CHECKING:
    from lightning.pytorch import Trainer
    from torch import Tensor

    from betavi.train.plan import TrainingPlan


class KeepBest(Callback):
    """Keeps the weights of the epoch with the lowest loss on held-out cells, after the warm-up.

    The loss is distortion + β * rate. With a target rate, it is the distortion, in epochs in which the
    rate is reached. If β changes, as in a rescue, earlier epochs no longer count. Without held-out
    cells, the weights of the last epoch stay. A model of images is also compared with probabilistic PCA
    of the training images. If no epoch has a lower loss, the model is this PCA.

    Examples
    --------
    >>> import betavi
    >>> adata = betavi.datasets.simulate_counts(n_cells=200, n_genes=20)
    >>> betavi.BetaVI.setup_anndata(adata)
    >>> model = betavi.BetaVI(adata, n_latent=3)
    >>> model.train(max_epochs=4, keep_best=True, enable_progress_bar=False)
    >>> model.history["validation_loss"].shape
    (4, 1)
    """

    def __init__(self) -> None:
        self.loss, self.epoch, self.beta = math.inf, -1, math.nan
        self._weights: dict[str, Tensor] = {}

    def on_train_start(self, trainer: Trainer, pl_module: TrainingPlan) -> None:
        """Compute the loss of probabilistic PCA, if there is one."""
        module, rival = pl_module.module, pl_module.rival
        if rival is None or pl_module.target_rate is not None or pl_module.capacity is not None:
            return
        before = {name: value.clone() for name, value in module.state_dict().items()}
        module.load_state_dict(rival)
        loss = _held_out_loss(trainer, pl_module)
        module.load_state_dict(before)
        pl_module.rival = None
        if loss is not None:
            self.loss, self.beta, self._weights = loss, module.beta_condition.beta, rival

    def on_validation_end(self, trainer: Trainer, pl_module: TrainingPlan) -> None:
        """Copy the weights if the epoch is the best so far."""
        module, is_held = pl_module.module, pl_module.target_rate is not None
        key = "reconstruction_loss_validation" if is_held else "validation_loss"
        if trainer.sanity_checking or not (pl_module.is_warm and pl_module.is_on_target):
            return
        if not is_held and module.beta_condition.beta != self.beta:
            self.loss = math.inf
        loss = float(trainer.callback_metrics.get(key, math.nan))
        if loss < self.loss:
            self.loss, self.epoch = loss, trainer.current_epoch
            self.beta = module.beta_condition.beta
            self._weights = {name: value.clone() for name, value in module.state_dict().items()}

    def on_train_end(self, trainer: Trainer, pl_module: TrainingPlan) -> None:
        """Load the weights of the best epoch."""
        if not self._weights:
            return
        pl_module.module.load_state_dict(self._weights)
        if pl_module.target_rate is not None:
            pl_module.module.beta_condition.beta = self.beta
            pl_module.final_beta = self.beta, None
        # the weights hold the β of the epoch before
        pl_module.store_beta()


@torch.no_grad()
def _held_out_loss(trainer: Trainer, plan: TrainingPlan) -> float | None:
    """Return the mean loss of held-out cells, at the full β. None without such cells."""
    loader = trainer.datamodule.val_dataloader()
    options = plan.loss_kwargs | {"kl_weight": 1.0}
    sums = torch.zeros(2, device=plan.device)
    with torch.random.fork_rng(), evaluating(plan.module):
        for batch in loader or []:
            losses = plan.module(batch, loss_kwargs=options)[-1]
            n_cells = losses.n_obs_minibatch
            sums += torch.stack([losses.loss * n_cells, losses.loss.new_tensor(n_cells)])
    total, n_cells = processes.summed(trainer, sums).tolist()
    return total / n_cells if n_cells else None
