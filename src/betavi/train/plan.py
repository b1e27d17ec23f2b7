"""The training plan."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scvi import REGISTRY_KEYS, train

from betavi.train.rows import Rows

if TYPE_CHECKING:
    from scvi.data import AnnDataManager

CELLS_AT_ONCE = 4096


class TrainingPlan(train.TrainingPlan):
    """scvi-tools' plan, which starts a fresh decoder at the mean of the training cells.

    Otherwise the rarer genes spend much of a run on reaching their own mean: Adam's ``eps`` of
    0.01, scvi-tools' default, makes steps small where gradients are.
    """

    def on_fit_start(self) -> None:
        """Set the output biases, unless the module has weights to keep."""
        super().on_fit_start()
        splitter: Any = self.trainer.datamodule
        manager = getattr(splitter, "adata_manager", None)
        if not self.module.is_fresh or manager is None:
            return
        for name in self.module.likelihoods:
            self.module.start_at(name, mean_profile(manager, name, splitter.train_idx))
        self.module.is_fresh = False


def mean_profile(manager: AnnDataManager, key: str, cells: np.ndarray) -> np.ndarray:
    """Return the mean of each feature per unit of size, ``(n_features,)``, of some cells.

    A cell's size is its size factor where there is one, and its total otherwise. Half a count is
    added to each feature, so that none is impossible.
    """
    rows = Rows(manager.get_from_registry(key))
    total = np.zeros(rows.shape[1])
    for start in range(0, len(cells), CELLS_AT_ONCE):
        block = rows[np.sort(cells[start : start + CELLS_AT_ONCE])]
        total += np.asarray(block.sum(axis=0, dtype=np.float64)).ravel()
    total += 0.5
    if REGISTRY_KEYS.SIZE_FACTOR_KEY in manager.data_registry:
        sizes = manager.get_from_registry(REGISTRY_KEYS.SIZE_FACTOR_KEY)
        return total / np.asarray(sizes, dtype=np.float64).ravel()[cells].sum()
    return total / total.sum()
