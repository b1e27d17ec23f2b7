"""What the decoder makes of positions: expected expression, and how sure that is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from scvi import REGISTRY_KEYS
from sklearn.neighbors import NearestNeighbors

from betavi.model.calibrate import EVERYONE
from betavi.model.covariates import batch_codes
from betavi.model.generate import GenerateMixin
from betavi.model.positions import CELLS_AT_ONCE
from betavi.module.single import COUNTS

if TYPE_CHECKING:
    from torch import Tensor
    from torch.distributions import Distribution

    from betavi.diagnostics import LatentDensity, SupportCalibration

N_DRAWS = 20
"""Draws around a position, whose decoded expression says how sure it is."""

N_NEAR = 15
"""Cells whose posteriors say how wide one would be at a position."""

PER_CELL = 1e4
POINTS_AT_ONCE = 64
MOST_SIZES = 5000


class Landscape(NamedTuple):
    """Where cells are, ``(n_cells, n_latent)``, what they are called, and how densely they lie."""

    names: pd.Index
    mean: np.ndarray
    variance: np.ndarray
    density: LatentDensity
    calibration: SupportCalibration


class Pattern(NamedTuple):
    """A minibatch of one cell, the size that it is decoded with, and its expected total, if any."""

    tensors: dict[str, Any]
    size: float
    total: float | None


class Decoded(NamedTuple):
    """Expected expression at points, ``(n_points, n_features)``, and its standard deviation."""

    mean: np.ndarray
    std: np.ndarray


class DecodeMixin(GenerateMixin):
    """From positions to rows of an object."""

    def _landscape(self) -> Landscape:
        """Return where cells are; the object is encoded once for a density."""
        density = self.latent_density()
        land: Landscape = self._once("landscape", density, lambda: self._surveyed(density))
        return land

    def _surveyed(self, density: LatentDensity) -> Landscape:
        adata = self._validate_anndata(None)
        cells = self._posteriors(adata, None, n_draws=0)
        calibration = self._calibrations()[EVERYONE]
        return Landscape(adata.obs_names, cells.mean, cells.variance, density, calibration)

    @torch.inference_mode()
    def _decoded_at(
        self,
        land: Landscape,
        points: np.ndarray,
        batch: str | int | None,
        library_size: float | None,
    ) -> Decoded:
        """Decode points, and draws around them as wide as the posteriors of cells near by."""
        if library_size is not None:
            self._check_size_of(COUNTS, library_size)
        codes = batch_codes(self.adata_manager, batch)
        n_batch = self.summary_stats.n_batch
        batches = [*range(n_batch)] if codes == [None] else codes
        spread = np.sqrt(self._variance_near(land, points))
        moments = []
        with self._drawing(0):
            pattern = self._typical_cell(library_size)
            for start in range(0, len(points), POINTS_AT_ONCE):
                some = slice(start, start + POINTS_AT_ONCE)
                noise = np.random.default_rng(start).standard_normal((N_DRAWS, *points[some].shape))
                around = np.concatenate([points[None, some], points[some] + spread[some] * noise])
                moments.append(self._moments_of(around, pattern, batches))
        if not moments:
            empty = np.zeros((0, self.summary_stats.n_vars))
            return Decoded(empty, empty)
        return Decoded(*(np.concatenate(parts) for parts in zip(*moments, strict=True)))

    def _moments_of(
        self, around: np.ndarray, pattern: Pattern, batches: list[int | None]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return what is expected at points, the first of the draws, and how the others differ."""
        n_draws, n_points, _ = around.shape
        z = self._decoder_reads(around).reshape(n_draws * n_points, -1)
        expected = sum(self._expected_at(z, pattern, code) for code in batches)
        drawn = (torch.as_tensor(expected) / len(batches)).reshape(n_draws, n_points, -1)
        mean, std = drawn[0], (drawn[1:] - drawn[0]).square().mean(dim=0).sqrt()
        return mean.cpu().numpy().astype(np.float64), std.cpu().numpy().astype(np.float64)

    def _expected_at(self, z: Tensor, pattern: Pattern, code: int | None) -> Tensor:
        """Return expected expression, brought to the total asked for."""
        tensors = {k: x.expand(len(z), *x.shape[1:]) for k, x in pattern.tensors.items()}
        log_size = torch.full((len(z), 1), float(np.log(pattern.size)), device=self.device)
        likelihood: Any = self.module.likelihoods[COUNTS]
        mean: Tensor = likelihood.expected(self._px(z, tensors, COUNTS, log_size, code))
        if pattern.total is None:
            return mean
        return mean * (pattern.total / mean.sum(dim=-1, keepdim=True).clamp_min(1e-12))

    def _typical_cell(self, library_size: float | None) -> Pattern:
        """Return the covariates of one cell, the values of most or of the middle, and its size."""
        adata = self._validate_anndata(None)
        (tensors,) = self._make_data_loader(adata, [0], batch_size=1)
        manager = self.adata_manager
        typical = dict(tensors)
        for key, choose in (
            (REGISTRY_KEYS.CONT_COVS_KEY, lambda x: np.median(x, axis=0)),
            (REGISTRY_KEYS.CAT_COVS_KEY, _most_common),
            (REGISTRY_KEYS.LABELS_KEY, _most_common),
        ):
            if key in tensors:
                values = np.asarray(manager.get_from_registry(key))
                chosen = torch.as_tensor(choose(values.reshape(len(values), -1)))
                typical[key] = chosen.reshape(tensors[key].shape).to(tensors[key].dtype)
        likelihood: Any = self.module.likelihoods[COUNTS]
        sums_up = likelihood.reads_size and likelihood.is_of_counts
        size = self._median_size()
        if library_size is None:
            return Pattern(typical, size, size if sums_up and not self._reads_factors else None)
        return Pattern(
            typical, size if sums_up else library_size, library_size if sums_up else None
        )

    def _median_size(self) -> float:
        """Return the median size that cells are decoded with."""
        some = np.random.default_rng(0).permutation(self.adata.n_obs)[:MOST_SIZES]
        loader = self._make_data_loader(self.adata, np.sort(some), batch_size=CELLS_AT_ONCE)
        sizes = [self._log_sizes(tensors).cpu().numpy().ravel() for tensors in loader]
        return float(np.exp(np.median(np.concatenate(sizes))))

    def _variance_near(self, land: Landscape, points: np.ndarray) -> np.ndarray:
        """Return the mean posterior variance of cells near each point, ``(n_points, n_latent)``."""
        if not len(points):
            return np.zeros_like(points)
        near = NearestNeighbors(n_neighbors=min(N_NEAR, len(land.mean))).fit(land.mean)
        variance: np.ndarray = land.variance[near.kneighbors(points, return_distance=False)].mean(
            axis=1
        )
        return variance

    def _prior_mean(self) -> np.ndarray:
        prior: Distribution = self.module.current_prior()
        with torch.inference_mode():
            return prior.mean.cpu().numpy().astype(np.float64)

    def _as_cells(self, land: Landscape, points: np.ndarray, found: Decoded) -> AnnData:
        """Return decoded points as an object, with what is known of where they are."""
        distance, cell = np.zeros(0), np.zeros(0, dtype=int)
        if len(points):
            near = NearestNeighbors(n_neighbors=1).fit(land.mean).kneighbors(points)
            distance, cell = near[0].ravel(), near[1].ravel()
        log_density = land.density.log_prob(points) if len(points) else np.zeros(0)
        scale = PER_CELL / np.maximum(found.mean.sum(axis=1, keepdims=True), 1e-12)
        of_logs = scale * found.std / (1 + scale * found.mean)
        obs = pd.DataFrame(
            {
                "log_density": log_density,
                "p_value": land.calibration.p_value_of_positions(log_density),
                "uncertainty": of_logs.mean(axis=1),
                "nearest_cell": land.names[cell].to_numpy(),
                "distance": distance,
            }
        )
        obs.index = obs.index.astype(str)
        var = pd.DataFrame(index=self.adata.var_names)
        adata = AnnData(found.mean.astype(np.float32), obs=obs, var=var)
        adata.layers["std"] = found.std.astype(np.float32)
        adata.obsm["z"] = points.astype(np.float32)
        return adata


def _most_common(values: np.ndarray) -> np.ndarray:
    """Return the most common value of each column."""
    counted = [np.unique(column, return_counts=True) for column in values.T]
    return np.array([known[counts.argmax()] for known, counts in counted])
