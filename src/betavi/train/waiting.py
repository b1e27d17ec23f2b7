"""Callbacks that judge a model wait until β is in force."""

from __future__ import annotations

from functools import wraps
from typing import TYPE_CHECKING, Any

from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from lightning.pytorch import Trainer

    from betavi.train.plan import TrainingPlan

JUDGING = ("on_validation_end", "on_train_epoch_end")
"""Where Lightning's callbacks look at what they monitor."""


def wait_for_warmup(callbacks: Iterable[Callback]) -> None:
    """Let early stopping and checkpoints of a best model ignore epochs before β is what it will be.

    While β grows the ELBO of a later epoch is no better or worse than that of an earlier one for
    the reason they look for. Checkpoints that monitor nothing are saved as ever.
    """
    for callback in callbacks:
        if isinstance(callback, EarlyStopping | ModelCheckpoint) and callback.monitor is not None:
            for hook in JUDGING:
                setattr(callback, hook, _once_warm(getattr(callback, hook)))


def _once_warm(hook: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(hook)
    def waiting(trainer: Trainer, plan: TrainingPlan) -> Any:
        return hook(trainer, plan) if plan.may_be_judged else None

    return waiting
