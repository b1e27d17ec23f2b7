"""Features of cells that labels are learned from: log counts and latent positions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse

from betavi import _blocks
from betavi.data.start_values import log_normalised
from betavi.model.core.latent import get_latent_representation

if TYPE_CHECKING:
    from collections.abc import Callable

    from scvi._types import AnnOrMuData

    from betavi.model.core.latent_model import LatentModel


def raw_counts(
    model: LatentModel, adata: AnnOrMuData, name: str, cells: np.ndarray
) -> sparse.csr_matrix:
    """Return the counts of cells in one modality."""
    rows, size = model.rows(adata, name), _blocks.DENSE_CELLS
    blocks = [
        sparse.csr_array(rows[cells[start : start + size]]) for start in range(0, len(cells), size)
    ]
    return sparse.csr_matrix(sparse.vstack(blocks))


def log_values(model: LatentModel, name: str, counts: sparse.csr_matrix) -> sparse.csr_matrix:
    """Return log counts, per 10,000 counts of a cell if the modality has library sizes."""
    if model.likelihood(name).reads_size:
        return sparse.csr_matrix(log_normalised(sparse.csr_array(counts)))
    return counts.astype(np.float64).log1p()


def _log_counts(
    model: LatentModel, adata: AnnOrMuData, name: str, cells: np.ndarray
) -> sparse.csr_matrix:
    return log_values(model, name, raw_counts(model, adata, name, cells))


def _positions(
    model: LatentModel, adata: AnnOrMuData, name: str, cells: np.ndarray
) -> sparse.csr_matrix:
    """Return the latent positions of cells, given one modality alone."""
    return sparse.csr_matrix(get_latent_representation(model, adata, cells, modalities=name))


FEATURES: dict[str, Callable[[LatentModel, AnnOrMuData, str, np.ndarray], sparse.csr_matrix]] = {
    "counts": _log_counts,
    "latent": _positions,
}
"""Features of cells from one modality, that labels are learned from."""
