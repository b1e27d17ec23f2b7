"""Where cells are, and what the decoders expect between them."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Generic, NamedTuple

import numpy as np
import pandas as pd
import torch
from scvi import REGISTRY_KEYS
from scvi.utils import track
from sklearn.neighbors import NearestNeighbors

from betavi.model.core.covariates import batch_codes
from betavi.model.generation.sources import DrawsMixin
from betavi.model.io.writer import Cells

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor
    from torch.distributions import Distribution

    from betavi.diagnostics import DensityCalibration, LatentDensity

N_DRAWS = 20
"""Draws around a position, whose decoded expression says how sure it is."""

N_NEAR = 15
"""Cells whose posteriors say how wide one would be at a position."""

POINTS_AT_ONCE = 64
ROWS_AT_ONCE = 512


class Landscape(NamedTuple):
    """Where cells are, ``(n_cells, n_latent)``, what they are called, and how densely they lie."""

    names: pd.Index
    mean: np.ndarray
    variance: np.ndarray
    density: LatentDensity
    calibration: DensityCalibration


class Wanted(NamedTuple):
    """What points are decoded as: of which batches, averaged, with which expected totals.

    A modality without a total has that of most cells.
    """

    batches: list[int | None]
    totals: Mapping[str, float]


class Decoded(NamedTuple):
    """Expected expression at points, ``(n_points, n_features)``, and its standard deviation."""

    mean: np.ndarray
    std: np.ndarray


class Points(NamedTuple):
    """What is returned of points.

    Parameters
    ----------
    obs
        A row a point.
    z
        Where, ``(n_points, n_latent)``.
    decoded
        What is expected there, by modality.
    var
        What is known of features, by modality.
    said
        For ``uns["betavi"]``.
    """

    obs: pd.DataFrame
    z: np.ndarray
    decoded: dict[str, Decoded]
    var: Mapping[str, pd.DataFrame] = MappingProxyType({})
    said: Mapping[str, Any] = MappingProxyType({})


class LandscapeMixin(DrawsMixin, Generic[Cells]):
    """From positions to what is expected of every modality there."""

    _wanted_totals: Callable[[Any], Mapping[str, Any]]
    """Checks sizes as a user gives them, and returns them by modality."""

    _measured_values: Callable[[str, np.ndarray], np.ndarray]
    """Measured features of a modality, dense, of those cells among some that have it."""

    _as_cells: Callable[[Points], Cells]
    """An object of decoded points."""

    def _landscape(self, show_progress: bool) -> Landscape:
        """Return where cells are; the object is encoded once for a density."""
        density = self.latent_density(show_progress)
        land: Landscape = self._once(
            "landscape", density, lambda: self._surveyed(density, show_progress)
        )
        return land

    def _surveyed(self, density: LatentDensity, show_progress: bool) -> Landscape:
        adata = self._validate_anndata(None)
        cells = self._posteriors(adata, None, n_draws=0, show_progress=show_progress)
        calibration = self._density_calibration(show_progress)
        return Landscape(adata.obs_names, cells.mean, cells.variance, density, calibration)

    def _wanted(self, batch: str | int | None, library_size: Any) -> Wanted:
        """Check what points are to be decoded as."""
        totals = self._wanted_totals(library_size)
        for total in totals.values():
            if np.ndim(total) > 0:
                raise ValueError(f"Every point is decoded at one library_size, not at {total!r}.")
        codes = batch_codes(self.adata_manager, batch)
        batches = [*range(self.summary_stats.n_batch)] if codes == [None] else codes
        return Wanted(batches, {name: float(total) for name, total in totals.items()})

    @torch.inference_mode()
    def _decoded_at(
        self, land: Landscape, points: np.ndarray, wanted: Wanted, show_progress: bool
    ) -> dict[str, Decoded]:
        """Decode points, and draws around them as wide as the posteriors of cells near by."""
        spread = np.sqrt(_variance_near(land, points))
        names, moments = list(self.module.likelihoods), []
        with self._drawing(0):
            typical = self._typical_cell()
            sizes = {name: self._usual_size(name) for name in names}
            starts = range(0, len(points), POINTS_AT_ONCE)
            for start in track(starts, description="Decoding", disable=not show_progress):
                around = _around(points, spread, start)
                z = self._decoder_reads(around).reshape(-1, points.shape[1])
                expected = {
                    name: self._expected(name, z, typical, sizes[name], wanted) for name in names
                }
                moments.append({name: _moments(x, around) for name, x in expected.items()})
        if not moments:
            return {name: Decoded(*np.zeros((2, 0, len(self._features(name))))) for name in names}
        return {
            name: Decoded(*np.concatenate([part[name] for part in moments], axis=1))
            for name in names
        }

    def _expected(
        self, name: str, z: Tensor, typical: dict[str, Any], usual: float, wanted: Wanted
    ) -> Tensor:
        """Return what is expected of a modality, brought to its total, averaged over batches."""
        tensors = {key: x.expand(len(z), *x.shape[1:]) for key, x in typical.items()}
        likelihood, total = self.module.likelihoods[name], wanted.totals.get(name)
        size = usual if total is None or likelihood.is_of_counts else total
        log_size = torch.full((len(z), 1), float(np.log(size)), device=self.device)
        if total is None and self._sums_to_size(name):
            total = usual
        parts = []
        for code in wanted.batches:
            mean = likelihood.expected(self._px(z, tensors, name, log_size, code))
            if total is not None and likelihood.is_of_counts:
                mean = mean * (total / mean.sum(dim=-1, keepdim=True).clamp_min(1e-12))
            parts.append(mean)
        return torch.stack(parts).mean(dim=0)

    def _typical_cell(self) -> dict[str, Any]:
        """Return the covariates of one cell, the values of most or of the middle."""
        adata = self._validate_anndata(None)
        (tensors,) = self._make_data_loader(adata, [0], batch_size=1)
        typical = dict(tensors)
        for key, choose in (
            (REGISTRY_KEYS.CONT_COVS_KEY, lambda x: np.median(x, axis=0)),
            (REGISTRY_KEYS.CAT_COVS_KEY, _most_common),
            (REGISTRY_KEYS.LABELS_KEY, _most_common),
        ):
            if key in tensors:
                values = np.asarray(self.adata_manager.get_from_registry(key))
                chosen = torch.as_tensor(choose(values.reshape(len(values), -1)))
                typical[key] = chosen.reshape(tensors[key].shape).to(tensors[key].dtype)
        return typical

    def _mean_profile(self, name: str, cells: np.ndarray, total: float) -> np.ndarray:
        """Return the mean of a modality over measured cells, at a total if its size is one."""
        likelihood, n_cells = self.module.likelihoods[name], 0
        sums: np.ndarray = np.zeros(len(self._features(name)))
        for part in np.array_split(cells, max(1, len(cells) // ROWS_AT_ONCE)):
            counts = self._measured_values(name, part).astype(np.float64)
            if likelihood.is_of_detection:
                counts = (counts > 0).astype(np.float64)
            elif likelihood.reads_size:
                counts *= total / np.maximum(counts.sum(axis=1, keepdims=True), 1.0)
            sums, n_cells = sums + counts.sum(axis=0), n_cells + len(counts)
        return sums / (n_cells or np.nan)

    def _prior_mean(self) -> np.ndarray:
        prior: Distribution = self.module.current_prior()
        with torch.inference_mode():
            return prior.mean.cpu().numpy().astype(np.float64)


def _around(points: np.ndarray, spread: np.ndarray, start: int) -> np.ndarray:
    """Return some of the points, and draws around them, ``(1 + n_draws, n_points, n_latent)``."""
    centres, widths = (part[start : start + POINTS_AT_ONCE] for part in (points, spread))
    # the same draws for every point, so that what is uncertain is so by as much at one as at the next
    noise = np.random.default_rng(0).standard_normal((N_DRAWS, 1, points.shape[1]))
    return np.concatenate([centres[None], centres + widths * noise])


def _moments(expected: Tensor, around: np.ndarray) -> np.ndarray:
    """Return what is expected at points, the first of the draws, and how the others differ."""
    drawn = expected.reshape(*around.shape[:2], -1)
    # rows of one product differ in the last digit where their positions do not differ at all
    moved = torch.as_tensor((around[1:] != around[0]).any(axis=-1), device=drawn.device)
    off = (drawn[1:] - drawn[0]).where(moved[..., None], 0.0)
    mean, std = drawn[0], off.square().mean(dim=0).sqrt()
    return torch.stack([mean, std]).cpu().numpy().astype(np.float64)


def _variance_near(land: Landscape, points: np.ndarray) -> np.ndarray:
    """Return the mean posterior variance of cells near each point, ``(n_points, n_latent)``."""
    if not len(points):
        return np.zeros_like(points)
    near = NearestNeighbors(n_neighbors=min(N_NEAR, len(land.mean))).fit(land.mean)
    found = near.kneighbors(points, return_distance=False)
    variance: np.ndarray = land.variance[found].mean(axis=1)
    return variance


def _most_common(values: np.ndarray) -> np.ndarray:
    """Return the most common value of each column."""
    counted = [np.unique(column, return_counts=True) for column in values.T]
    return np.array([known[counts.argmax()] for known, counts in counted])


def place_of(land: Landscape, points: np.ndarray, names: list[str]) -> pd.DataFrame:
    """Return what is known of where points are: density, p-value, the nearest cell."""
    distance, cell, log_density = np.zeros(0), np.zeros(0, dtype=int), np.zeros(0)
    if len(points):
        near = NearestNeighbors(n_neighbors=1).fit(land.mean).kneighbors(points)
        distance, cell = near[0].ravel(), near[1].ravel()
        log_density = land.density.log_prob(points)
    return pd.DataFrame(
        {
            "log_density": log_density,
            "p_value": land.calibration.p_value(log_density),
            "nearest_cell": land.names[cell].to_numpy(),
            "distance": distance,
        },
        index=pd.Index(names, dtype=object),
    )
