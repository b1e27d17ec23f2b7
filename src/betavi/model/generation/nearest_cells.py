"""Measured cells that generated ones take their covariates, their label and their size from."""

from __future__ import annotations

import numpy as np
from sklearn.neighbors import NearestNeighbors

from betavi.model.core.density import MOST_CELLS

N_NEIGHBOURS = 15
"""Measured cells near a position, of which one lends to a generated cell."""


class Lenders:
    """Measured cells that lend to generated ones that are near.

    A batch that has no cells where a position is lends nothing there, nor does a label.

    Parameters
    ----------
    cells
        Which they are, positions in the object, ``(n_lenders,)``.
    positions
        Where, ``(n_lenders, n_latent)``.
    rng
        Chooses one of several that are near.
    """

    def __init__(self, cells: np.ndarray, positions: np.ndarray, rng: np.random.Generator) -> None:
        self.cells, self.rng = cells, rng
        self._nearest = NearestNeighbors(n_neighbors=min(N_NEIGHBOURS, len(cells))).fit(positions)

    def near(self, positions: np.ndarray) -> np.ndarray:
        """Return a cell near each position, as positions in the object, ``(n,)``."""
        found = self._nearest.kneighbors(positions, return_distance=False)
        pick = self.rng.integers(found.shape[1], size=len(found))
        chosen: np.ndarray = self.cells[found[np.arange(len(found)), pick]]
        return chosen


def some_of(cells: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return at most a number of cells, in order."""
    return np.sort(rng.permutation(cells)[:MOST_CELLS])
