"""Rows, minibatches, loaders, the split, start values, and detection of change."""

from __future__ import annotations

from betavi.data.changes import weights_digest
from betavi.data.images import ImageFormat, format_in
from betavi.data.lazy import read_lazy
from betavi.data.minibatches import COUNTS, CellManager, ExpertKeys, expert_keys, present_key
from betavi.data.rows import MOVED_COUNTS, AlignedRows, Rows, counts_layer, counts_of
from betavi.data.split import DataSplitter
from betavi.data.store import StoreDataModule
from betavi.data.stored import StackedRows, files_of

__all__ = [
    "COUNTS",
    "MOVED_COUNTS",
    "AlignedRows",
    "CellManager",
    "DataSplitter",
    "ExpertKeys",
    "ImageFormat",
    "Rows",
    "StackedRows",
    "StoreDataModule",
    "counts_layer",
    "counts_of",
    "expert_keys",
    "files_of",
    "format_in",
    "present_key",
    "read_lazy",
    "weights_digest",
]
