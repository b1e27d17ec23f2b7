"""Minibatches and the training run."""

from __future__ import annotations

from betavi.train.guard import CollapseGuard
from betavi.train.minibatches import CellDataset, CellManager
from betavi.train.plan import (
    DEFAULT_SCHEDULE,
    DEFAULT_WARMUP,
    SCVI_SCHEDULE,
    SETS_RATE,
    USUAL_PEAK,
    TrainingPlan,
)
from betavi.train.rows import MOVED_COUNTS, AlignedRows, Rows, counts_layer, counts_of
from betavi.train.runner import TrainRunner
from betavi.train.splitter import DataSplitter

__all__ = [
    "DEFAULT_SCHEDULE",
    "DEFAULT_WARMUP",
    "MOVED_COUNTS",
    "SCVI_SCHEDULE",
    "SETS_RATE",
    "USUAL_PEAK",
    "AlignedRows",
    "CellDataset",
    "CellManager",
    "CollapseGuard",
    "DataSplitter",
    "Rows",
    "TrainRunner",
    "TrainingPlan",
    "counts_layer",
    "counts_of",
]
