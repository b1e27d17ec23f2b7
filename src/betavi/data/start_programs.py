"""Programs of genes that vary together, used to initialise additive decoders."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy import sparse
from sklearn.decomposition import NMF
from sklearn.exceptions import ConvergenceWarning

from betavi.data.start_values import log_normalised

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from betavi.data.minibatches import CellManager

MOST_CELLS = 4096
"""Number of cells that are factorised. Not tuned."""

MOST_ROUNDS = 300
"""Number of rounds of the factorisation. A start needs no convergence. Not tuned."""


def programs(
    manager: CellManager, keys: Sequence[str], cells: np.ndarray, n_programs: int
) -> dict[str, Tensor]:
    """Return programs from a non-negative matrix factorisation of log-normalised counts.

    Matrices of several modalities are factorised together, each scaled to the same sum of squares, over
    cells that have all of them. If too few cells have all, only the modality of the most cells is
    factorised.

    Parameters
    ----------
    manager
        Registered cells.
    keys
        Keys of the matrices.
    cells
        Positions of the training cells.
    n_programs
        Number of programs, sorted by the variance of log counts that they explain.

    Returns
    -------
    By key, changes of log(1 + normalised counts) where the program's activity is one standard deviation
    higher, ``(n_programs, n_features)``, at least 0. Missing programs are zero. A modality that was not
    factorised has no entry.

    References
    ----------
    Lee & Seung (1999), Learning the parts of objects by non-negative matrix factorization.
    """
    found = {key: rows for key in keys if (rows := manager.rows(key)) is not None}
    if not found:
        return {}
    present = {key: rows.present[cells] for key, rows in found.items()}
    is_present = np.all(list(present.values()), axis=0)
    if is_present.sum() <= n_programs:
        most = max(present, key=lambda key: int(present[key].sum()))
        found, is_present = {most: found[most]}, present[most]
    some = np.sort(cells[is_present])[:: max(1, is_present.sum() // MOST_CELLS)][:MOST_CELLS]
    blocks = {key: _log_counts(sparse.csr_array(rows[some])) for key, rows in found.items()}
    widths = {key: block.shape[1] for key, block in blocks.items()}
    n_found = min(n_programs, len(some) - 1, sum(widths.values()))
    if n_found < 1 or not all(block.nnz for block in blocks.values()):
        return {}
    weights = {key: np.sqrt((block.data**2).sum()) for key, block in blocks.items()}
    stacked = sparse.hstack([blocks[key] / weights[key] for key in blocks], format="csr")
    activity, parts = _factorised(stacked, n_found)
    parts *= activity.std(axis=0)[:, None]
    parts = parts[np.argsort(-np.square(parts).sum(axis=1))]
    padded = np.zeros((n_programs, parts.shape[1]))
    padded[:n_found] = parts
    ends = np.cumsum(list(widths.values()))[:-1]
    by_key = dict(zip(blocks, np.split(padded, ends, axis=1), strict=True))
    return {key: torch.as_tensor(by_key[key] * weights[key]).float() for key in blocks}


def _log_counts(counts: sparse.csr_array) -> sparse.csr_array:
    """Return log(1 + counts), sparse, with each cell scaled to the median total."""
    totals = counts.sum(axis=1)
    return log_normalised(counts, float(np.median(totals[totals > 0])) if totals.any() else 1.0)


def _factorised(matrix: sparse.csr_array, n_programs: int) -> tuple[np.ndarray, np.ndarray]:
    # drawn from PyTorch's generator, which scvi's seed sets
    seed = int(torch.randint(2**31 - 1, ()))
    factors = NMF(n_programs, max_iter=MOST_ROUNDS, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        activity = factors.fit_transform(matrix)
    return activity, factors.components_
