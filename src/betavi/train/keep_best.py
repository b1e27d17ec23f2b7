"""Callback that keeps the weights of the best epoch."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from lightning.pytorch.callbacks import Callback

if TYPE_CHECKING:
    from lightning.pytorch import Trainer
    from torch import Tensor

    from betavi.train.plan import TrainingPlan


class KeepBest(Callback):
    """Keeps the weights of the epoch with the lowest loss on held-out cells, after the warm-up.

    The loss is distortion + β * rate. With a target rate, it is the distortion, in epochs in which the
    rate is reached. If β changes, as in a rescue, earlier epochs no longer count. Without held-out
    cells, the weights of the last epoch stay.

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
