"""The training plan."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy import sparse
from scvi import REGISTRY_KEYS, train

from betavi.likelihoods import Start
from betavi.train.rows import Rows

if TYPE_CHECKING:
    from scvi.data import AnnDataManager

CELLS_AT_ONCE = 1024
PSEUDOCOUNT = 0.5
"""Added to the total of each feature, so that none is impossible."""


class TrainingPlan(train.TrainingPlan):
    """scvi-tools' plan, which starts a fresh decoder at the moments of the training cells.

    Otherwise much of a run is spent on reaching each gene's own mean and dispersion: with
    scvi-tools' defaults, a learning rate of 0.001 and an ``eps`` of 0.01 in Adam, a parameter moves
    by at most 0.001 a step, and by less where gradients are small.
    """

    def on_fit_start(self) -> None:
        """Set the output biases and dispersions, unless the module has weights to keep."""
        super().on_fit_start()
        splitter: Any = self.trainer.datamodule
        manager = getattr(splitter, "adata_manager", None)
        if self.module.is_fresh and manager is not None:
            names = list(self.module.likelihoods)
            starts = {name: moments(manager, name, splitter.train_idx) for name in names}
            self.module.start_at(starts)


def moments(manager: AnnDataManager, key: str, cells: np.ndarray) -> Start:
    """Return what some cells say of each feature of a registered matrix.

    Parameters
    ----------
    manager
        The manager of the object.
    key
        The key of the matrix in its registry.
    cells
        Rows to read. A cell's size is its size factor where there is one, its total otherwise.

    Returns
    -------
    Moments in single precision, on the CPU.

    Raises
    ------
    ValueError
        If none of the cells has a count.
    """
    rows = Rows(manager.get_from_registry(key))
    sizes = _sizes(manager)
    total, squares, cross = (np.zeros(rows.shape[1]) for _ in range(3))
    size_total = size_squares = 0.0
    for start in range(0, len(cells), CELLS_AT_ONCE):
        some = np.sort(cells[start : start + CELLS_AT_ONCE])
        block = sparse.csr_array(rows[some], dtype=np.float64)
        size = block.sum(axis=1) if sizes is None else sizes[some]
        total += block.sum(axis=0)
        squares += block.power(2).sum(axis=0)
        cross += size @ block
        size_total += size.sum()
        size_squares += np.square(size).sum()
    if not total.any():
        raise ValueError(
            f"None of the {len(cells)} training cells has any count in {key!r}: there is nothing "
            "to learn. Hold out fewer cells, or drop those without counts."
        )
    profile = (total + PSEUDOCOUNT) / size_total
    mean_square = size_squares * np.square(profile) / len(cells)
    variance = (squares - 2 * profile * cross) / len(cells) + mean_square
    values = (profile, profile * size_total / len(cells), mean_square, variance)
    return Start(*(torch.as_tensor(value, dtype=torch.float32) for value in values))


def _sizes(manager: AnnDataManager) -> np.ndarray | None:
    if REGISTRY_KEYS.SIZE_FACTOR_KEY not in manager.data_registry:
        return None
    sizes = manager.get_from_registry(REGISTRY_KEYS.SIZE_FACTOR_KEY)
    return np.asarray(sizes, dtype=np.float64).ravel()
