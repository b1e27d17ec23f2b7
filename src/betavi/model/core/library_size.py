"""The size of a cell in an assay that it lacks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scvi import REGISTRY_KEYS

from betavi.data import AlignedRows, expert_keys

if TYPE_CHECKING:
    from betavi.data import CellManager


def aligned(manager: CellManager, name: str) -> AlignedRows:
    """Return the rows of a modality by the cells of its object."""
    rows = manager.rows(name)
    assert isinstance(rows, AlignedRows)
    return rows


def measured_sizes(manager: CellManager, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return which cells have counts of a modality, ``(n_cells,)``, and the log totals of these."""
    kept = expert_keys(name).total
    rows = aligned(manager, kept if kept in manager.data_registry else name)
    has = rows.present.copy()
    # empty cells, of which training learns nothing, have no size
    totals = rows.rows.totals()[rows.position[has]]
    has[has] = totals > 0
    return has, np.log(totals[totals > 0])


def typical_sizes(manager: CellManager, name: str) -> tuple[np.ndarray, np.ndarray, int]:
    """Return median and spread of the log totals by batch, NaN without cells, and the largest batch."""
    has, totals = measured_sizes(manager, name)
    codes = manager.get_from_registry(REGISTRY_KEYS.BATCH_KEY).ravel()[has]
    n_batch = len(manager.get_state_registry(REGISTRY_KEYS.BATCH_KEY).categorical_mapping)
    typical, spreads = np.full((2, n_batch), np.nan)
    for code in np.unique(codes):
        typical[code], spreads[code] = np.median(totals[codes == code]), totals[codes == code].std()
    return typical, spreads, int(np.bincount(codes, minlength=n_batch).argmax())
