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
"""Hooks in which Lightning's callbacks look at what they monitor."""


def wait_for_warmup(callbacks: Iterable[Callback], stops_as_told: bool = False) -> None:
    """Let early stopping and checkpoints of a best model ignore epochs before β is in force.

    While β grows, the ELBO changes because of β. Checkpoints that monitor nothing are saved as usual,
    and early stopping for which the user chose the first epoch starts there, as in SCVI.
    """
    for callback in callbacks:
        if not isinstance(callback, EarlyStopping | ModelCheckpoint) or callback.monitor is None:
            continue
        if isinstance(callback, EarlyStopping) and (
            stops_as_told or getattr(callback, "warmup_epochs", False)
        ):
            continue
        for hook in JUDGING:
            setattr(callback, hook, _once_warm(getattr(callback, hook)))


def _once_warm(hook: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(hook)
    def waiting(trainer: Trainer, plan: TrainingPlan) -> Any:
        return hook(trainer, plan) if plan.may_be_judged else None

    return waiting
