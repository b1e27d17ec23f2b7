"""Agreement of two modalities on the positions of cells."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.spatial.distance import cdist

from betavi import _blocks

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


def foscttm(one: ArrayLike, other: ArrayLike) -> float:
    """Return the fraction of samples closer than the true match.

    Parameters
    ----------
    one, other
        Positions of the same cells, inferred from two modalities, ``(n_cells, n_latent)``.

    Returns
    -------
    Each cell has one position from each modality. The result is the share of other cells whose
    position from the second modality is closer to the cell's first position than the cell's own
    second position. It is a mean over cells and over both orders of the modalities. A tie counts as
    0.5. The result is 0 if the modalities agree, and 0.5 by chance.

    Raises
    ------
    ValueError
        If shapes differ, or there are fewer than two cells.

    References
    ----------
    Liu et al. (2019), Jointly embedding multiple single-cell omics measurements.

    Examples
    --------
    >>> cells = np.arange(5.0)[:, None]
    >>> foscttm(cells, cells + 0.1), foscttm(cells, np.zeros((5, 1)))
    (0.0, 0.5)
    """
    one, other = np.asarray(one, dtype=float), np.asarray(other, dtype=float)
    if one.shape != other.shape or len(one) < 2:
        raise ValueError(
            f"`one` and `other` must hold the same cells, at least two, but their shapes are "
            f"{one.shape} and {other.shape}."
        )
    return (_closer(one, other) + _closer(other, one)) / 2


def _closer(one: np.ndarray, other: np.ndarray) -> float:
    total = 0.0
    for start in range(0, len(one), _blocks.DENSE_CELLS):
        distances = cdist(one[start : start + _blocks.DENSE_CELLS], other)
        own = distances[np.arange(len(distances)), np.arange(start, start + len(distances))]
        ranks = (distances < own[:, None]).sum(axis=1)
        # without the cell's tie with its own match
        ties = (distances == own[:, None]).sum(axis=1) - 1
        total += float((ranks + ties / 2).sum())
    return total / (len(one) * (len(one) - 1))
