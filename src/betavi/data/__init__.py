"""Rows, minibatches, loaders, the split, start values, and detection of change."""

from __future__ import annotations

from betavi.data.changes import weights_digest
from betavi.data.minibatches import (
    COUNTS,
    CellDataset,
    CellManager,
    ExpertKeys,
    expert_keys,
    present_key,
)
from betavi.data.rows import MOVED_COUNTS, AlignedRows, Rows, counts_layer, counts_of
from betavi.data.split import DataSplitter
from betavi.data.start_values import TARGET_SUM, UNEXPLAINED, Start, moments

__all__ = [
    "COUNTS",
    "MOVED_COUNTS",
    "TARGET_SUM",
    "UNEXPLAINED",
    "AlignedRows",
    "CellDataset",
    "CellManager",
    "DataSplitter",
    "ExpertKeys",
    "Rows",
    "Start",
    "counts_layer",
    "counts_of",
    "expert_keys",
    "moments",
    "present_key",
    "weights_digest",
]
