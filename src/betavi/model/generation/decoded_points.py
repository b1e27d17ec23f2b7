"""Decoded latent positions, as an object with one row per position."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from scipy import stats
from scvi import REGISTRY_KEYS
from scvi.utils import track

from betavi import _blocks
from betavi.model.core.covariates import batch_codes
from betavi.model.core.density import decoder_input
from betavi.model.core.library_size import usual_size
from betavi.model.generation.generate import SMALLEST_TOTAL
from betavi.model.generation.latent_reference import variance_near
from betavi.model.generation.request import expected_totals

if TYPE_CHECKING:
    from collections.abc import Mapping

    from scvi._types import AnnOrMuData
    from torch import Tensor

    from betavi.model.core.latent_model import LatentModel, Tensors
    from betavi.model.generation.latent_reference import LatentReference

N_DRAWS = 20
"""Number of decoded draws around a position, for its uncertainty; not tuned."""

PER_CELL = 1e4
"""Total of the log expression whose uncertainty is reported."""


class DecodeOptions(NamedTuple):
    """Codes of the batches to average over, and totals by modality.

    A modality without a total is decoded at the median size.
    """

    batches: list[Any]
    totals: Mapping[str, float]


class Decoded(NamedTuple):
    """Expected expression at points and its standard deviation, ``(n_points, n_features)``."""

    mean: np.ndarray
    std: np.ndarray


def decode_options(model: LatentModel, batch: str | int | None, library_size: Any) -> DecodeOptions:
    """Validate the batch and the library size to decode points with.

    Raises a ValueError if the batch is unknown, or a size is not one positive number.
    """
    totals = expected_totals(model, library_size)
    for total in totals.values():
        if np.ndim(total) > 0:
            raise ValueError(f"`library_size` must be one number for all points, not {total!r}.")
    all_batches = range(model.summary_stats.n_batch)
    batches = list(all_batches) if batch is None else batch_codes(model.adata_manager, batch)
    return DecodeOptions(batches, {name: float(total) for name, total in totals.items()})


@torch.inference_mode()
def decode_points(
    model: LatentModel,
    reference: LatentReference,
    points: np.ndarray,
    options: DecodeOptions,
    show_progress: bool,
) -> dict[str, Decoded]:
    """Decode points by modality, with random positions around each point for its uncertainty.

    The random positions are spread as widely as the posteriors of near cells.
    """
    names = model.modalities
    if not len(points):
        return {name: Decoded(*np.zeros((2, 0, len(model.features(name))))) for name in names}
    spread = np.sqrt(variance_near(reference, points))
    # the same draws at every point, so that uncertainty does not vary by chance between points
    noise = np.random.default_rng(0).standard_normal((N_DRAWS, 1, points.shape[1]))
    parts: dict[str, list[np.ndarray]] = {name: [] for name in names}
    with model.seeded(0):
        cell = _median_cell(model)
        sizes = {name: usual_size(model, name) for name in names}
        starts = range(0, len(points), _blocks.DECODED_POINTS)
        for start in track(starts, description="Decoding", disable=not show_progress):
            block = slice(start, start + _blocks.DECODED_POINTS)
            around = np.concatenate([points[None, block], points[block] + spread[block] * noise])
            z = decoder_input(model, around).reshape(-1, points.shape[1])
            for name in names:
                expected = _expected(model, name, z, cell, sizes[name], options)
                parts[name].append(_mean_and_spread(expected, around))
    return {name: Decoded(*np.concatenate(parts[name], axis=1)) for name in names}


def _expected(
    model: LatentModel, name: str, z: Tensor, cell: Tensors, usual: float, options: DecodeOptions
) -> Tensor:
    """Return the expected values of a modality at its total, averaged over batches."""
    tensors = {key: x.expand(len(z), *x.shape[1:]) for key, x in cell.items()}
    likelihood, total = model.likelihood(name), options.totals.get(name)
    size = usual if total is None or likelihood.is_of_counts else total
    log_size = torch.full((len(z), 1), float(np.log(size)), device=model.device)
    if total is None and likelihood.reads_size and not model.module.options.given_size:
        total = usual
    parts = []
    for code in options.batches:
        mean = likelihood.expected(model.decode(z, tensors, name, log_size, code))
        if total is not None and likelihood.is_of_counts:
            mean = mean * (total / mean.sum(dim=-1, keepdim=True).clamp_min(SMALLEST_TOTAL))
        parts.append(mean)
    return torch.stack(parts).mean(dim=0)


def _mean_and_spread(expected: Tensor, around: np.ndarray) -> np.ndarray:
    """Return values at points, and their standard deviation. The first positions are the points."""
    drawn = expected.reshape(*around.shape[:2], -1)
    # rows of a matrix product may differ in the last digit, even at equal positions
    moved = torch.as_tensor((around[1:] != around[0]).any(axis=-1), device=drawn.device)
    difference = (drawn[1:] - drawn[0]).where(moved[..., None], 0.0)
    std = difference.square().mean(dim=0).sqrt()
    return torch.stack([drawn[0], std]).cpu().numpy().astype(np.float64)


def _median_cell(model: LatentModel) -> Tensors:
    """Return a cell with the median of continuous and the mode of categorical covariates."""
    tensors: Tensors = next(model.minibatches(model._validate_anndata(None), [0], 1))
    keys = REGISTRY_KEYS
    for key in {keys.CONT_COVS_KEY, keys.CAT_COVS_KEY, keys.LABELS_KEY} & tensors.keys():
        values = np.asarray(model.adata_manager.get_from_registry(key)).reshape(
            model.adata.n_obs, -1
        )
        is_continuous = key == keys.CONT_COVS_KEY
        chosen = np.median(values, axis=0) if is_continuous else stats.mode(values, axis=0).mode
        tensors[key] = torch.as_tensor(chosen).reshape(tensors[key].shape).to(tensors[key].dtype)
    return tensors


def mean_profile(model: LatentModel, name: str, cells: np.ndarray, total: float) -> np.ndarray:
    """Return the mean profile of a modality over measured cells.

    If the likelihood reads a library size, each cell is first scaled to ``total``.
    """
    likelihood, adata = model.likelihood(name), model.adata
    rows, n_cells = model.rows(adata, name), 0
    sums: np.ndarray = np.zeros(len(model.features(name)))
    cells = cells[model.adapter.has(adata, name)[cells]]
    for part in np.array_split(cells, max(1, len(cells) // _blocks.PROFILED_CELLS)):
        counts = rows.dense(part, np.float32).astype(np.float64)
        if likelihood.is_of_detection:
            counts = (counts > 0).astype(np.float64)
        elif likelihood.reads_size:
            counts *= total / np.maximum(counts.sum(axis=1, keepdims=True), 1.0)
        sums, n_cells = sums + counts.sum(axis=0), n_cells + len(counts)
    return sums / (n_cells or np.nan)


def points_as_cells(
    model: LatentModel,
    obs: pd.DataFrame,
    z: np.ndarray,
    decoded: Mapping[str, Decoded],
    var: Mapping[str, pd.DataFrame] = MappingProxyType({}),
    record: Mapping[str, Any] = MappingProxyType({}),
) -> AnnOrMuData:
    """Return decoded points as an object with one row per point.

    ``z`` are the positions, ``(n_points, n_latent)``. ``var`` has columns by modality, and
    ``record`` the entries of ``uns["betavi"]``.
    """
    parts = {}
    for name, (mean, std) in decoded.items():
        spread = std
        if model.likelihood(name).of_images:
            rows = obs.assign(uncertainty=spread.mean(axis=1))
            parts[name] = model.as_images(name, rows, images=mean, std=std)
            continue
        if model.likelihood(name).is_of_counts:
            scale = PER_CELL / np.maximum(mean.sum(axis=1, keepdims=True), SMALLEST_TOTAL)
            spread = scale * std / (1 + scale * mean)
        parts[name] = AnnData(
            mean.astype(np.float32),
            obs=obs.assign(uncertainty=spread.mean(axis=1)),
            var=var.get(name, pd.DataFrame(index=model.features(name))),
            layers={"std": std.astype(np.float32)},
        )
    points = model.adapter.together(parts)
    points.obs = points.obs.assign(**{str(name): obs[name] for name in obs})
    for part in (points, *parts.values()):
        part.obsm["z"] = z.astype(np.float32)
        if record:
            part.uns["betavi"] = dict(record)
    return points
