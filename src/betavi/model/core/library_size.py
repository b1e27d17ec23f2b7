"""Library sizes of cells, typical library sizes of batches, and sizes for decoding."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import numpy as np
from scvi import REGISTRY_KEYS

from betavi._blocks import ENCODED_CELLS
from betavi.data import AlignedRows, expert_keys
from betavi.data.start_values import LARGEST_DEPTH

if TYPE_CHECKING:
    from torch import Tensor

    from betavi.data import CellManager, Rows
    from betavi.model.core.latent_model import LatentModel, Tensors
    from betavi.nn.library import LatentLibrary

SMALLEST_LOG_LIBRARY_VARIANCE = 1e-4
"""Smallest variance of a batch's log library sizes, for batches with one cell. Not tuned."""

MAX_CELLS_FOR_MEDIAN = 5000
"""Largest number of cells that a median size is computed from, drawn from all cells."""


def measured_sizes(manager: CellManager, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return a mask of the cells with counts of a modality, ``(n_cells,)``, and log totals."""
    # a minified object stores totals in place of counts
    total_key = expert_keys(name).total
    rows = manager.rows(total_key if total_key in manager.data_registry else name)
    assert isinstance(rows, AlignedRows)
    has = rows.present.copy()
    if rows.is_image:
        # images have no library size
        return has, np.zeros(has.sum())
    totals = rows.stored.totals()[rows.position[has]]
    has[has] = totals > 0
    return has, np.log(totals[totals > 0])


def typical_sizes(manager: CellManager, name: str) -> tuple[np.ndarray, np.ndarray, int]:
    """Return median and deviation of the log totals by batch, and the code of the largest batch.

    Medians and standard deviations are ``(n_batch,)``, with NaN for a batch without measured cells.
    """
    has, log_totals = measured_sizes(manager, name)
    codes = manager.get_from_registry(REGISTRY_KEYS.BATCH_KEY).ravel()[has]
    n_batch = len(manager.get_state_registry(REGISTRY_KEYS.BATCH_KEY).categorical_mapping)
    medians, deviations = np.full((2, n_batch), np.nan)
    for code in np.unique(codes):
        of_batch = log_totals[codes == code]
        medians[code] = np.median(of_batch)
        deviations[code] = _limited(of_batch).std()
    return medians, deviations, int(np.bincount(codes, minlength=n_batch).argmax())


def _limited(log_totals: np.ndarray) -> np.ndarray:
    """Limit log totals, because an aggregate would widen the distribution of all cells."""
    return np.minimum(log_totals, np.median(log_totals) + np.log(LARGEST_DEPTH))


def cell_log_sizes(model: LatentModel, tensors: Tensors, name: str) -> Tensor:
    """Return log sizes for decoding measured cells, ``(n_cells, 1)``.

    The size is the size factor of the cell, the mean of the inferred library size, or the total
    count.
    """
    inferred = {} if model.module.options.given_size else model.infer(tensors)
    if name in inferred.get("ql", {}):
        inferred["library"][name] = inferred["ql"][name].loc
    return model.module.log_sizes(tensors, inferred, name)


def drawn_log_sizes(model: LatentModel, z: Tensor, tensors: Tensors, name: str) -> Tensor:
    """Return log sizes for new cells at z, ``(..., n_cells, 1)``.

    If the model predicts sizes, they are drawn given z. Otherwise they are the minibatch's own
    sizes.
    """
    typical = model.module.typical(name)
    if typical is None:
        return cell_log_sizes(model, tensors, name)
    return typical.given(z, model.module.measured_batch(tensors, name)).sample()


def usual_size(model: LatentModel, name: str) -> float:
    """Return the median library size, or size factor, of the cells that have a modality."""
    if model.module.typical(name) is not None:
        return float(np.exp(np.median(measured_sizes(model.adata_manager, name)[1])))
    some = np.random.default_rng(0).permutation(model.adata.n_obs)[:MAX_CELLS_FOR_MEDIAN]
    minibatches = model.minibatches(model.adata, np.sort(some), ENCODED_CELLS)
    sizes = [cell_log_sizes(model, x, name).cpu().numpy().ravel() for x in minibatches]
    return float(np.exp(np.median(np.concatenate(sizes))))


def start_sizes(model: LatentModel, manager: CellManager) -> None:
    """Set the typical sizes, or the prior of inferred sizes, of a model without an object."""
    n_batch = model.covariate_sizes.n_batch
    for name in model.modalities:
        if (typical := model.module.typical(name)) is not None:
            typical.start_at(*typical_sizes(manager, name))
        if name in model.module.l_encoder:
            prior = cast("LatentLibrary", model.module.l_encoder[name])
            prior.start_at(*library_prior(manager, n_batch))


def library_prior(manager: CellManager | None, n_batch: int) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and variance of the log library size of each batch, ``(1, n_batch)``.

    A batch without cells in the object has mean 0 and variance 1. So have all batches without an object.
    """
    if manager is None:
        return np.zeros((1, n_batch)), np.ones((1, n_batch))
    totals = cast("Rows", manager.rows(REGISTRY_KEYS.X_KEY)).totals()
    batch = manager.get_from_registry(REGISTRY_KEYS.BATCH_KEY).ravel()
    means, variances = np.zeros((1, n_batch)), np.ones((1, n_batch))
    for code in np.unique(batch):
        log_totals = np.log(totals[(batch == code) & (totals > 0)])
        if len(log_totals):
            log_totals = _limited(log_totals)
            means[0, code] = log_totals.mean()
            variances[0, code] = max(log_totals.var(), SMALLEST_LOG_LIBRARY_VARIANCE)
    return means, variances
