"""Training plan, callback and training run."""

from __future__ import annotations

from betavi.train.guard import CollapseGuard
from betavi.train.keep_best import KeepBest
from betavi.train.plan import TrainingPlan
from betavi.train.runner import TrainRunner
from betavi.train.start import (
    DEFAULT_SCHEDULE,
    DEFAULT_WARMUP,
    SCVI_SCHEDULE,
    SETS_RATE,
    USUAL_PEAK,
)

__all__ = [
    "DEFAULT_SCHEDULE",
    "DEFAULT_WARMUP",
    "SCVI_SCHEDULE",
    "SETS_RATE",
    "USUAL_PEAK",
    "CollapseGuard",
    "KeepBest",
    "TrainRunner",
    "TrainingPlan",
]
