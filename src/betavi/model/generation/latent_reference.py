"""Positions and density of a model's cells, as a reference for other positions."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
from sklearn.neighbors import NearestNeighbors

from betavi.model.core.density import density_calibration, latent_density, posteriors

if TYPE_CHECKING:
    from betavi.diagnostics import DensityCalibration, LatentDensity
    from betavi.model.core.latent_model import LatentModel

N_NEAR = 15
"""Number of nearest cells whose posterior variances are averaged; not tuned."""


class LatentReference(NamedTuple):
    """Posterior means and variances of all cells, ``(n_cells, n_latent)``, and their density."""

    names: pd.Index
    mean: np.ndarray
    variance: np.ndarray
    density: LatentDensity
    calibration: DensityCalibration


def latent_reference(model: LatentModel, show_progress: bool) -> LatentReference:
    """Return the positions of all cells.

    Cells are encoded again only after a new fit of the density.
    """
    density = latent_density(model, show_progress)

    def make() -> LatentReference:
        adata = model._validate_anndata(None)
        cells = posteriors(model, adata, progress="Encoding" if show_progress else None)
        calibration = density_calibration(model, show_progress)
        return LatentReference(adata.obs_names, cells.mean, cells.variance, density, calibration)

    return model.cached("latent reference", density, make)


def positions_table(
    reference: LatentReference, points: np.ndarray, names: list[str]
) -> pd.DataFrame:
    """Return log density, p-value, nearest cell and its distance for each point."""
    distance, cell, log_density = np.zeros(0), np.zeros(0, dtype=int), np.zeros(0)
    if len(points):
        near = NearestNeighbors(n_neighbors=1).fit(reference.mean).kneighbors(points)
        distance, cell = near[0].ravel(), near[1].ravel()
        log_density = reference.density.log_prob(points)
    return pd.DataFrame(
        {
            "log_density": log_density,
            "p_value": reference.calibration.p_value(log_density),
            "nearest_cell": reference.names[cell].to_numpy(),
            "distance": distance,
        },
        index=pd.Index(names, dtype=object),
    )


def variance_near(reference: LatentReference, points: np.ndarray) -> np.ndarray:
    """Return the mean posterior variance of the cells near each point, ``(n_points, n_latent)``."""
    index = NearestNeighbors(n_neighbors=min(N_NEAR, len(reference.mean))).fit(reference.mean)
    return reference.variance[index.kneighbors(points, return_distance=False)].mean(axis=1)
