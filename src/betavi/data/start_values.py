"""Moments of each feature over the training cells, used to initialise decoders."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from scipy import sparse
from scvi import REGISTRY_KEYS

from betavi import _blocks

if TYPE_CHECKING:
    from torch import Tensor

    from betavi.data.minibatches import CellManager
    from betavi.data.rows import AlignedRows, Rows

PSEUDOCOUNT = 0.5
"""Pseudocount of each feature, so that no feature is impossible. Not tuned."""

UNEXPLAINED = 0.4
"""Assumed share of a feature's variance that z leaves unexplained, tuned by ``benchmarks.start``."""

LARGEST_DEPTH = 10.0
"""Largest total of a cell with full weight, in medians. ``benchmarks.deep_cells`` measures it."""

SAMPLED_CELLS = 4096
"""Number of cells whose median total is computed. Not tuned."""

TARGET_SUM = 1e4
"""Total counts per cell before the logarithm, as is usual with scanpy."""


class Start(NamedTuple):
    """Moments of each feature over cells, ``(n_features,)``. Very deep cells are scaled down.

    Parameters
    ----------
    profile
        Mean count per unit of cell size. The expected counts of a cell are its size times
        ``profile``.
    mean, mean_square
        Mean over cells of the expected count, and of the squared expected count.
    variance
        Mean over cells of the squared difference between count and expected count.
    log_mean, log_variance
        Mean and variance of log(1 + counts per 10,000). With size factors, of log(1 + counts per
        unit of size).

    Examples
    --------
    >>> from betavi.likelihoods import LIKELIHOODS, DispersionSizes, Start
    >>> likelihood = LIKELIHOODS["poisson"](8, 2, "softmax", "gene", DispersionSizes(1, 1))
    >>> likelihood.start_at(Start(torch.tensor([0.25, 0.75]), *torch.ones(5, 2)))
    >>> likelihood.unscaled.bias.exp().round(decimals=3).tolist()
    [0.25, 0.75]
    """

    profile: Tensor
    mean: Tensor
    mean_square: Tensor
    variance: Tensor
    log_mean: Tensor
    log_variance: Tensor

    @staticmethod
    def unexplained(variance: Tensor) -> Tensor:
        """Return the part of a variance that z is assumed to leave unexplained."""
        return UNEXPLAINED * variance


def log_normalised(counts: sparse.csr_array, target_sum: float = TARGET_SUM) -> sparse.csr_array:
    """Return log(1 + counts), sparse, with each cell scaled to a total, by default 10,000."""
    counts = sparse.csr_array(counts, dtype=np.float64)
    totals = counts.sum(axis=1)
    units = target_sum / np.where(totals > 0, totals, 1.0)
    return (sparse.diags_array(units) @ counts).log1p().tocsr()


def moments(manager: CellManager, key: str, cells: np.ndarray) -> Start:
    """Return the moments of each feature of a registered matrix over chosen cells, on the CPU.

    Cells without the modality are skipped. The size of a cell is its size factor. Without
    registered size factors, it is the total count. Raise a ValueError if no cell has counts.
    """
    rows = manager.rows(key)
    assert rows is not None
    # in the order of the file
    cells = np.sort(cells[rows.present[cells]])
    largest = largest_total(rows, cells)
    sizes = _size_factors(manager)
    total, squares, cross, logs, log_squares = (np.zeros(rows.shape[1]) for _ in range(5))
    size_total = size_squares = 0.0
    for start in range(0, len(cells), _blocks.DENSE_CELLS):
        some = cells[start : start + _blocks.DENSE_CELLS]
        block = sparse.csr_array(rows[some], dtype=np.float64)
        weights = np.minimum(1, largest / np.fmax(block.sum(axis=1), 1))
        block = sparse.diags_array(weights) @ block
        size = block.sum(axis=1) if sizes is None else sizes[some] * weights
        total += block.sum(axis=0)
        squares += block.power(2).sum(axis=0)
        cross += size @ block
        # a cell without counts would be divided by zero
        units = (TARGET_SUM if sizes is None else 1.0) / np.where(size > 0, size, 1.0)
        log_block = (sparse.diags_array(units) @ block).log1p()
        logs += log_block.sum(axis=0)
        log_squares += log_block.power(2).sum(axis=0)
        size_total += size.sum()
        size_squares += np.square(size).sum()
    if not total.any():
        raise ValueError(
            f"None of the {len(cells)} training cells has any counts in the modality {key!r}. Hold "
            "out fewer cells, or drop the cells without counts."
        )
    profile = (total + PSEUDOCOUNT) / size_total
    mean_square = size_squares * np.square(profile) / len(cells)
    variance = (squares - 2 * profile * cross) / len(cells) + mean_square
    mean, log_mean = profile * size_total / len(cells), logs / len(cells)
    log_variance = log_squares / len(cells) - np.square(log_mean)
    values = (profile, mean, mean_square, variance, log_mean, log_variance)
    tensors = (torch.as_tensor(value, dtype=torch.float32) for value in values)
    return Start(*tensors)


def largest_total(rows: Rows | AlignedRows, cells: np.ndarray) -> float:
    """Return the largest total of a cell with full weight; infinite without counts."""
    step = max(1, len(cells) // SAMPLED_CELLS)
    some = sparse.csr_array(rows[np.sort(cells[::step])], dtype=np.float64).sum(axis=1)
    return limit_of(some)


def limit_of(totals: np.ndarray) -> float:
    """Return the limit for cells with these totals, ``(n_cells,)``; infinite without counts."""
    return LARGEST_DEPTH * float(np.median(totals[totals > 0])) if totals.any() else math.inf


def _size_factors(manager: CellManager) -> np.ndarray | None:
    if REGISTRY_KEYS.SIZE_FACTOR_KEY not in manager.data_registry:
        return None
    sizes = manager.get_from_registry(REGISTRY_KEYS.SIZE_FACTOR_KEY)
    return np.asarray(sizes, dtype=np.float64).ravel()
