"""A training run: refused before it starts if it cannot work, kept if it is interrupted."""

from __future__ import annotations

import signal
import threading
import warnings
from typing import TYPE_CHECKING, Any

from scvi import settings, train
from torch import nn

from betavi.data.split import DataSplitter
from betavi.train.waiting import wait_for_warmup

if TYPE_CHECKING:
    from lightning.pytorch import LightningDataModule, LightningModule
    from scvi.model.base import BaseModelClass


class TrainRunner(train.TrainRunner):
    """scvi-tools' run, which Ctrl-C stops without losing the model.

    Parameters
    ----------
    model
        The model to train.
    training_plan
        Its training plan.
    data_splitter
        Splits its cells into training, validation and test sets.
    max_epochs
        Number of passes over the training cells.
    **trainer_kwargs
        Passed to scvi-tools' run.

    Raises
    ------
    ValueError
        If the last minibatch would hold one cell and the networks use batch normalisation.

    Examples
    --------
    >>> import betavi
    >>> from betavi.data import DataSplitter
    >>> from betavi.train import TrainingPlan, TrainRunner
    >>> adata = betavi.datasets.simulate_counts(n_cells=50, n_genes=20)
    >>> betavi.BetaVI.setup_anndata(adata)
    >>> model = betavi.BetaVI(adata, n_latent=2)
    >>> plan, splitter = TrainingPlan(model.module), DataSplitter(model.adata_manager)
    >>> TrainRunner(model, plan, splitter, max_epochs=1, enable_progress_bar=False)()
    >>> len(model.history["elbo_train"])
    1
    """

    def __init__(
        self,
        model: BaseModelClass,
        training_plan: LightningModule,
        data_splitter: LightningDataModule,
        max_epochs: int,
        **trainer_kwargs: Any,
    ) -> None:
        _refuse_single_cell(model.module, data_splitter)
        super().__init__(model, training_plan, data_splitter, max_epochs, **trainer_kwargs)
        stops_as_told = "early_stopping_warmup_epochs" in trainer_kwargs
        wait_for_warmup(self.trainer.callbacks, stops_as_told)

    def __call__(self) -> None:
        """Train, and leave a usable model also when interrupted."""
        in_main_thread = threading.current_thread() is threading.main_thread()
        handler = signal.getsignal(signal.SIGINT) if in_main_thread else None
        try:
            super().__call__()
        except SystemExit as exit_:
            # Lightning makes an exit of Ctrl-C, and ignores every later one
            if not isinstance(exit_.__context__, KeyboardInterrupt):
                raise
            self._keep_interrupted()
        finally:
            if in_main_thread:
                signal.signal(signal.SIGINT, handler)

    def _keep_interrupted(self) -> None:
        model, splitter = self.model, self.data_splitter
        model.train_indices = getattr(splitter, "train_idx", None)
        model.validation_indices = getattr(splitter, "val_idx", None)
        model.test_indices = getattr(splitter, "test_idx", None)
        model.module.eval()
        model.is_trained_ = True
        model.trainer = self.trainer
        model.to_device(self.device)
        warnings.warn(
            f"Training was interrupted in epoch {self.trainer.current_epoch + 1} of "
            f"{self.trainer.max_epochs}. The model has the weights it had reached.",
            UserWarning,
            stacklevel=settings.warnings_stacklevel,
        )


def _refuse_single_cell(module: nn.Module, splitter: LightningDataModule) -> None:
    """Batch normalisation has no variance to divide by in a minibatch of one cell."""
    if not isinstance(splitter, DataSplitter) or splitter.smallest_minibatch > 1:
        return
    if any(isinstance(part, nn.BatchNorm1d) for part in module.modules()):
        raise ValueError(
            f"{splitter.n_train} training cells in minibatches of {splitter.batch_size} leave a "
            "last minibatch of one cell, on which batch normalisation is undefined. Train with "
            "another batch_size, with datasplitter_kwargs={'drop_last': True}, or without batch "
            "normalisation, use_batch_norm='none'."
        )
