"""Library sizes: measured, typical of a batch, and those that cells are decoded with."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import numpy as np
from scvi import REGISTRY_KEYS

from betavi._blocks import ENCODED_CELLS
from betavi.data import AlignedRows, expert_keys

if TYPE_CHECKING:
    from torch import Tensor

    from betavi.data import CellManager, Rows
    from betavi.model.core.latent_model import LatentModel, Tensors

SMALLEST_LOG_LIBRARY_VARIANCE = 1e-4
"""Variance of a batch with one cell, or whose cells all have the same size; not tuned."""

MOST_SIZES = 5000
"""Largest number of cells for a median size, drawn from all."""


def aligned(manager: CellManager, name: str) -> AlignedRows:
    """Return the rows of a modality by the cells of its object."""
    rows = manager.rows(name)
    assert isinstance(rows, AlignedRows)
    return rows


def measured_sizes(manager: CellManager, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return a mask of the cells with counts of a modality, ``(n_cells,)``, and their log totals."""
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


def cell_log_sizes(model: LatentModel, tensors: Tensors, name: str) -> Tensor:
    """Return the log sizes for decoding measured cells, ``(n_cells, 1)``.

    The size factor where there is one, the mean of an inferred size, or the cell's total.
    """
    inferred = {} if model.module.options.given_size else model.infer(tensors)
    if name in inferred.get("ql", {}):
        inferred["library"][name] = inferred["ql"][name].loc
    return model.module.log_sizes(tensors, inferred, name)


def drawn_log_sizes(model: LatentModel, z: Tensor, tensors: Tensors, name: str) -> Tensor:
    """Return log sizes of new cells at z, ``(..., n_cells, 1)``.

    Drawn given z where the model has learned that, otherwise those of the minibatch's cells.
    """
    typical = model.module.typical(name)
    if typical is None:
        return cell_log_sizes(model, tensors, name)
    return typical.given(z, model.module.measured_batch(tensors, name)).sample()


def usual_size(model: LatentModel, name: str) -> float:
    """Return the median size of the cells that have a modality."""
    if model.module.typical(name) is not None:
        return float(np.exp(np.median(measured_sizes(model.adata_manager, name)[1])))
    some = np.random.default_rng(0).permutation(model.adata.n_obs)[:MOST_SIZES]
    minibatches = model.minibatches(model.adata, np.sort(some), ENCODED_CELLS)
    sizes = [cell_log_sizes(model, x, name).cpu().numpy().ravel() for x in minibatches]
    return float(np.exp(np.median(np.concatenate(sizes))))


def library_prior(manager: CellManager, n_batch: int) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and variance of the log library size of each batch, ``(1, n_batch)``.

    A batch that the object has no cells of has mean 0 and variance 1.
    """
    totals = cast("Rows", manager.rows(REGISTRY_KEYS.X_KEY)).totals()
    batch = manager.get_from_registry(REGISTRY_KEYS.BATCH_KEY).ravel()
    means, variances = np.zeros((1, n_batch)), np.ones((1, n_batch))
    for code in np.unique(batch):
        log_totals = np.log(totals[(batch == code) & (totals > 0)])
        if len(log_totals):
            means[0, code] = log_totals.mean()
            variances[0, code] = max(log_totals.var(), SMALLEST_LOG_LIBRARY_VARIANCE)
    return means, variances
