"""Decoded points of several modalities, as an object of paired cells."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from mudata import MuData

from betavi._mudata import assembled
from betavi.model.core.library_size import aligned
from betavi.model.generation.decode import points_as_cells
from betavi.model.generation.decoded_points import LandscapeMixin
from betavi.model.generation.joint_generate import JointGenerateMixin

if TYPE_CHECKING:
    from betavi.model.generation.decoded_points import Points


class JointDecodeMixin(JointGenerateMixin, LandscapeMixin[MuData]):
    """What is said of points of several modalities."""

    def _measured_values(self, name: str, cells: np.ndarray) -> np.ndarray:
        rows = aligned(self.adata_manager, name)
        counts: np.ndarray = rows.dense(cells[rows.present[cells]], np.float32)
        return counts

    def _as_cells(self, points: Points) -> MuData:
        likelihoods: Any = self.module.likelihoods
        parts = {
            name: points_as_cells(points, name, self._features(name), likelihoods[name])
            for name in points.decoded
        }
        found = assembled(parts)
        found.obs = points.obs.copy()
        found.obsm["z"] = points.z.astype(np.float32)
        if points.said:
            found.uns["betavi"] = dict(points.said)
        return found
