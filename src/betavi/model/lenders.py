"""Measured cells that generated ones take their size and their label from."""

from __future__ import annotations

from typing import Any

import numpy as np
from scvi import REGISTRY_KEYS
from sklearn.neighbors import NearestNeighbors

from betavi.model.positions import MOST_CELLS

N_NEIGHBOURS = 15
"""Measured cells near a position, of which one lends a generated cell its size and label."""


class Lenders:
    """Measured cells that lend generated ones their size and their label: near, of the same batch.

    Parameters
    ----------
    cells
        Which they are, positions in the object, ``(n_lenders,)``.
    positions
        Where, ``(n_lenders, n_latent)``.
    batch
        Code of each, ``(n_lenders,)``.
    rng
        Chooses one of several that are near.
    """

    def __init__(
        self, cells: np.ndarray, positions: np.ndarray, batch: np.ndarray, rng: np.random.Generator
    ) -> None:
        self.cells, self.rng = cells, rng
        self.by_batch = {}
        for code in np.unique(batch):
            here = np.flatnonzero(batch == code)
            near = NearestNeighbors(n_neighbors=min(N_NEIGHBOURS, len(here)))
            self.by_batch[int(code)] = here, near.fit(positions[here])

    def near(self, positions: np.ndarray, tensors: dict[str, Any]) -> np.ndarray:
        """Return one for each position, as numbers from 0 to ``n_lenders``, ``(n,)``.

        Its batch is that of a minibatch.
        """
        batch = tensors[REGISTRY_KEYS.BATCH_KEY].ravel().cpu().numpy()
        chosen = np.empty(len(positions), dtype=np.int64)
        for code, (here, near) in self.by_batch.items():
            mine = batch == code
            if mine.any():
                found = near.kneighbors(positions[mine], return_distance=False)
                pick = self.rng.integers(found.shape[1], size=len(found))
                chosen[mine] = here[found[np.arange(len(found)), pick]]
        return chosen


def some_of(cells: np.ndarray, batch: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return at most a number of cells, with some of every batch, in order."""
    if len(cells) <= MOST_CELLS:
        return cells
    first = np.unique(batch[cells], return_index=True)[1]
    some = rng.permutation(len(cells))[: MOST_CELLS - len(first)]
    return np.sort(cells[np.union1d(first, some)])
