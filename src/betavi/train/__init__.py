"""Minibatches and the training run."""

from __future__ import annotations

from betavi.train.guard import CollapseGuard
from betavi.train.plan import (
    DEFAULT_SCHEDULE,
    DEFAULT_WARMUP,
    SCVI_SCHEDULE,
    SETS_RATE,
    USUAL_PEAK,
    TrainingPlan,
)
from betavi.train.runner import TrainRunner

__all__ = [
    "DEFAULT_SCHEDULE",
    "DEFAULT_WARMUP",
    "SCVI_SCHEDULE",
    "SETS_RATE",
    "USUAL_PEAK",
    "CollapseGuard",
    "TrainRunner",
    "TrainingPlan",
]
