"""Training run that keeps the model if it is interrupted."""

from __future__ import annotations

import signal
import threading
import warnings
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint
from scvi import train
from scvi.model._utils import use_distributed_sampler
from torch import distributed, nn

from betavi.data.split import DataSplitter
from betavi.train import launch
from betavi.train.handover import HandOver
from betavi.train.messages import without_advertising
from betavi.train.run_guard import NonFiniteLossError, RunGuard, suspects
from betavi.train.start import warn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from lightning.pytorch import LightningDataModule, LightningModule, Trainer
    from scvi.model.base import BaseModelClass

    from betavi.train.plan import TrainingPlan


MONITORING = ("on_validation_end", "on_train_epoch_end")
"""Hooks in which Lightning's callbacks check the value that they monitor."""


class TrainRunner(train.TrainRunner):
    """scvi-tools' training run. Ctrl-C stops the run without losing the model.

    Parameters
    ----------
    model, training_plan, data_splitter, max_epochs, **trainer_kwargs
        See :class:`scvi.train.TrainRunner`.

    Raises
    ------
    ValueError
        If the last minibatch would hold one cell, and the networks use batch normalisation.

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
    """

    def __init__(
        self,
        model: BaseModelClass,
        training_plan: LightningModule,
        data_splitter: LightningDataModule,
        max_epochs: int,
        **trainer_kwargs: Any,
    ) -> None:
        self.run_guard = RunGuard()
        # a copy, because scvi-tools adds callbacks to the list
        callbacks = [*(trainer_kwargs.pop("callbacks", None) or []), self.run_guard]
        trainer_kwargs["callbacks"] = callbacks
        if use_distributed_sampler(trainer_kwargs.get("strategy")):
            launch.refuse_early_stopping(trainer_kwargs)
            # scvi-tools would write the history into the user's folder
            self.folder = TemporaryDirectory()
            trainer_kwargs.setdefault("log_save_dir", self.folder.name)
        if isinstance(data_splitter, DataSplitter):
            # the splitter divides the cells itself
            trainer_kwargs["use_distributed_sampler"] = False
        with without_advertising(), warnings.catch_warnings():
            # early stopping was refused above
            warnings.filterwarnings("ignore", message="early_stopping was automatically disabled")
            super().__init__(model, training_plan, data_splitter, max_epochs, **trainer_kwargs)
        _check_last_minibatch(model.module, data_splitter, self.trainer.world_size)
        if self.trainer.world_size > 1:
            launch.check(self)
            launch.configure(self.trainer, model.module)
        has_user_start = "early_stopping_warmup_epochs" in trainer_kwargs
        _wait_for_warmup(self.trainer.callbacks, has_user_start)

    def __call__(self) -> None:
        """Train, and keep a usable model if interrupted."""
        in_main_thread = threading.current_thread() is threading.main_thread()
        handler = signal.getsignal(signal.SIGINT) if in_main_thread else None
        try:
            with without_advertising():
                if self.trainer.world_size == 1:
                    super().__call__()
                else:
                    self._run_in_processes()
            self._answer_in_single_precision()
        except SystemExit as exit_:
            # Lightning turns Ctrl-C into an exit, and ignores every later Ctrl-C
            if not isinstance(exit_.__context__, KeyboardInterrupt) or self.trainer.global_rank:
                raise
            if launch.is_spawned(self.trainer):
                self.trainer.strategy.launcher.kill(signal.SIGKILL)
                raise RuntimeError(
                    "Training was interrupted. The weights were in spawned processes, so the model "
                    "is unchanged. To keep a model that is interrupted, use strategy='ddp'."
                ) from None
            self._keep()
            self.training_plan.warn_if_short()
            warn(
                f"Training was interrupted in epoch {self.trainer.current_epoch + 1} of "
                f"{self.trainer.max_epochs}. The model keeps the weights reached so far."
            )
        except NonFiniteLossError as error:
            raise self._explained(error) from None
        finally:
            if in_main_thread:
                signal.signal(signal.SIGINT, handler)

    def _run_in_processes(self) -> None:
        """Train in several processes. At the end, every process has the history and the split."""
        trainer, is_spawned = self.trainer, launch.is_spawned(self.trainer)
        if is_spawned:
            # in this process too, which does not train
            self.data_splitter.setup("fit")
            hand_over = HandOver(Path(self.folder.name) / "beta.json")
            trainer.callbacks.append(hand_over)
        with launch.explained(trainer):
            super().__call__()
            if is_spawned:
                hand_over.restore(self.training_plan)
            else:
                self.model.history_ = trainer.strategy.broadcast(self.model.history_)
                # running means of batch normalisation differ between processes
                for buffer in self.model.module.buffers():
                    distributed.broadcast(buffer, 0)

    def _answer_in_single_precision(self) -> None:
        """Convert the weights of a run in another precision, which some processors cannot use."""
        if any(part.dtype != torch.float32 for part in self.model.module.parameters()):
            self.model.module.float()
            self.training_plan.store_beta()

    def _explained(self, error: NonFiniteLossError) -> NonFiniteLossError:
        """Keep the last finite weights. Return the error with its likely causes and remedies."""
        epoch, module = self.run_guard.epoch, self.model.module
        kept = "The model keeps its initial weights."
        if epoch:
            self._keep()
            kept = f"The model keeps the weights at the end of epoch {epoch}."
        words = ", ".join(sorted(set(map(repr, module.likelihood_names.values()))))
        return NonFiniteLossError(
            f"{error} {kept} Likelihood: {words}. {suspects(module, self.data_splitter)} Or, lower "
            "the learning rate, e.g. to a third: plan_kwargs={'one_cycle': 0.003}"
        )

    def _keep(self) -> None:
        """Make a usable model of a run that ended early."""
        model, splitter = self.model, self.data_splitter
        model.train_indices = getattr(splitter, "train_idx", None)
        model.validation_indices = getattr(splitter, "val_idx", None)
        model.test_indices = getattr(splitter, "test_idx", None)
        model.module.eval()
        self._answer_in_single_precision()
        model.is_trained_ = True
        model.trainer = self.trainer
        model.to_device(self.device)


def _check_last_minibatch(
    module: nn.Module, splitter: LightningDataModule, n_processes: int
) -> None:
    """Raise a ValueError if batch normalisation would be undefined in a minibatch of one cell."""
    if not isinstance(splitter, DataSplitter) or splitter.smallest_minibatch(n_processes) > 1:
        return
    in_each = f" in each of {n_processes} processes" if n_processes > 1 else ""
    begin = (
        f"{splitter.n_train} training cells in minibatches of {splitter.batch_size}{in_each} leave"
    )
    remedy = "Use another `batch_size` or `train_size`, or datasplitter_kwargs={'drop_last': True}"
    if splitter.smallest_minibatch(n_processes) == 0:
        raise ValueError(f"{begin} a process without cells in the last step. {remedy}.")
    if any(isinstance(part, nn.BatchNorm1d) for part in module.modules()):
        raise ValueError(
            f"{begin} a last minibatch of one cell, for which batch normalisation is undefined. "
            f"{remedy}, or use_batch_norm='none'."
        )


def _wait_for_warmup(callbacks: Iterable[Callback], has_user_start: bool = False) -> None:
    """Let early stopping and checkpoints of the best model ignore the epochs of the warm-up.

    While β rises, a change of the ELBO does not mean a better or a worse model. Checkpoints that
    monitor no quantity do not wait. Early stopping does not wait if the user chose its start.
    """
    for callback in callbacks:
        if not isinstance(callback, EarlyStopping | ModelCheckpoint) or callback.monitor is None:
            continue
        if isinstance(callback, EarlyStopping) and (
            has_user_start or getattr(callback, "warmup_epochs", False)
        ):
            continue
        for hook in MONITORING:
            setattr(callback, hook, partial(_after_warmup, getattr(callback, hook)))


def _after_warmup(hook: Callable[..., Any], trainer: Trainer, plan: TrainingPlan) -> Any:
    return hook(trainer, plan) if plan.may_be_monitored else None
