"""The size of a cell in an assay that it lacks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from scvi import REGISTRY_KEYS

from betavi.train import AlignedRows

if TYPE_CHECKING:
    from torch import Tensor

    from betavi.train import CellManager


def aligned(manager: CellManager, name: str) -> AlignedRows:
    """Return the rows of a modality by the cells of its object."""
    rows = manager.rows(name)
    assert isinstance(rows, AlignedRows)
    return rows


def typical_log_sizes(manager: CellManager, name: str) -> Tensor:
    """Return the median log total of a modality's cells in each batch, or in all, ``(n_batch,)``."""
    rows = aligned(manager, name)
    has = rows.present
    totals = np.log(np.maximum(rows.rows.totals()[rows.position[has]], 1))
    codes = manager.get_from_registry(REGISTRY_KEYS.BATCH_KEY).ravel()[has]
    n_batch = len(manager.get_state_registry(REGISTRY_KEYS.BATCH_KEY).categorical_mapping)
    typical = np.full(n_batch, np.median(totals))
    for code in np.unique(codes):
        typical[code] = np.median(totals[codes == code])
    return torch.as_tensor(typical, dtype=torch.float32)
