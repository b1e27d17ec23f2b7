"""Warning of cells with many times the counts of other cells."""

from __future__ import annotations

from typing import TYPE_CHECKING

from betavi.data.start_values import LARGEST_DEPTH, limit_of
from betavi.model.setup.messages import name_some, warn

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd


def warn_deep_cells(
    totals: np.ndarray, names: pd.Index, label: str, largest: float | None = None
) -> None:
    """Warn of cells whose total count is above the limit of training.

    Parameters
    ----------
    totals, names
        Total count and name of each cell, ``(n_cells,)``.
    label
        Name of the object in the message.
    largest
        Limit of a trained model. If None, the limit that training on these cells would set.
    """
    cells = "the cells" if largest is None else "the training cells"
    largest = limit_of(totals) if largest is None else largest
    deep = totals > largest
    if deep.any():
        warn(
            f"{deep.sum()} cell(s) of {label} have more than {LARGEST_DEPTH:g} times the median "
            f"count of {cells} ({largest / LARGEST_DEPTH:g}): {name_some(names[deep])}. They may "
            "be aggregates, bulk samples, or cells of another protocol. The encoder reads their "
            "counts scaled down to this limit, and training reduces their weight accordingly. "
            "Remove barcodes that are not single cells before setup."
        )
