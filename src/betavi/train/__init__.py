"""Minibatches and the training run."""

from __future__ import annotations

from betavi.train.minibatches import CellDataset, CellManager
from betavi.train.plan import TrainingPlan
from betavi.train.rows import Rows
from betavi.train.runner import TrainRunner
from betavi.train.splitter import DataSplitter

__all__ = ["CellDataset", "CellManager", "DataSplitter", "Rows", "TrainRunner", "TrainingPlan"]
