"""Decoded points of one modality, as an object of cells."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from anndata import AnnData
from scvi import REGISTRY_KEYS

from betavi.model.generation.decoded_points import LandscapeMixin
from betavi.model.generation.generate import GenerateMixin

if TYPE_CHECKING:
    from betavi.likelihoods import Likelihood
    from betavi.model.generation.decoded_points import Points

PER_CELL = 1e4
MOST_SIZES = 5000


class DecodeMixin(GenerateMixin, LandscapeMixin[AnnData]):
    """What is said of points of one modality."""

    def _measured_values(self, name: str, cells: np.ndarray) -> np.ndarray:
        del name
        counts: np.ndarray = self.adata_manager.rows(REGISTRY_KEYS.X_KEY).dense(cells, np.float32)
        return counts

    def _as_cells(self, points: Points) -> AnnData:
        (name,) = points.decoded
        return points_as_cells(points, name, self._features(name), self.module.likelihoods[name])


def points_as_cells(points: Points, name: str, features: Any, likelihood: Likelihood) -> AnnData:
    """Return decoded points as an object, with what is known of where they are.

    Parameters
    ----------
    points
        What is said of them.
    name
        Of the modality.
    features
        Names of its features.
    likelihood
        Of counts the uncertainty is that of their logarithms, of others that of what is expected.
    """
    mean, std = points.decoded[name]
    spread = std
    if likelihood.is_of_counts:
        scale = PER_CELL / np.maximum(mean.sum(axis=1, keepdims=True), 1e-12)
        spread = scale * std / (1 + scale * mean)
    adata = AnnData(
        mean.astype(np.float32),
        obs=points.obs.assign(uncertainty=spread.mean(axis=1)),
        var=points.var.get(name, pd.DataFrame(index=pd.Index(features))),
    )
    adata.layers["std"] = std.astype(np.float32)
    adata.obsm["z"] = points.z.astype(np.float32)
    if points.said:
        adata.uns["betavi"] = dict(points.said)
    return adata
