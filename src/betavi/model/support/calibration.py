"""How strange cells are that are known to be possible: those held out from training."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scvi import REGISTRY_KEYS

from betavi.data import present_key
from betavi.diagnostics import CellScores, SupportCalibration
from betavi.kernels import dense
from betavi.model.core._transition import in_turn
from betavi.model.core.density import CELLS_AT_ONCE
from betavi.model.support.scores import SurpriseMixin

if TYPE_CHECKING:
    from scvi._types import AnnOrMuData

    from betavi.diagnostics import LatentDensity

KEPT = (1.0, 0.5, 0.25, 0.125)
"""Shares of their molecules that known cells are given, to know what is usual of shallow ones."""

LEAST_TRAINED = 0.5
"""Share of the cells that are to train a model at least."""

MOST_KNOWN, ENOUGH_KNOWN = 2000, 100
EVERYONE = -1


class CalibrateMixin(SurpriseMixin):
    """What is usual of the scores of cells."""

    def _calibrations(self, show_progress: bool) -> dict[int, SupportCalibration]:
        """Return the scores of cells held out, by what was measured of them, and of all of them."""
        density = self.latent_density(show_progress)
        found: dict[int, SupportCalibration] = self._once(
            "calibrations", density, lambda: self._calibrated(density, show_progress)
        )
        return found

    def _calibrated(
        self, density: LatentDensity, show_progress: bool
    ) -> dict[int, SupportCalibration]:
        adata = self._validate_anndata(None)
        scores, pattern = self._known_scores(
            adata, self._known_cells(density), density, show_progress
        )
        found = {EVERYONE: SupportCalibration(scores)}
        for code in np.unique(pattern):
            mine = pattern == code
            if ENOUGH_KNOWN <= mine.sum() < len(mine):
                found[int(code)] = SupportCalibration(scores.of(mine))
        return found

    def _known_scores(
        self, adata: AnnOrMuData, cells: np.ndarray, density: LatentDensity, show_progress: bool
    ) -> tuple[CellScores, np.ndarray]:
        """Return scores of copies of cells, ``(n_copies, n_cells)``, and what each cell has."""
        parts, patterns = [], []
        loader = self._make_data_loader(adata, cells, batch_size=CELLS_AT_ONCE)
        with self._drawing(0):
            for tensors in in_turn(loader, "Calibrating", show_progress):
                copies = [self._scores(self._with_fewer(tensors, share), density) for share in KEPT]
                parts.append(CellScores(*map(np.stack, zip(*copies, strict=True))))
                patterns.append(self._pattern(tensors))
        return CellScores.joined(parts), np.concatenate(patterns)

    def _pattern(self, tensors: dict[str, Any]) -> np.ndarray:
        """Return a number for which modalities each cell has, ``(n_cells,)``."""
        code = np.zeros(len(tensors[REGISTRY_KEYS.BATCH_KEY]), dtype=int)
        for place, name in enumerate(self.module.likelihoods):
            if (key := present_key(name)) in tensors:
                code += tensors[key].ravel().cpu().numpy().astype(int) << place
        return code

    def _with_fewer(self, tensors: dict[str, Any], share: float) -> dict[str, Any]:
        """Return a minibatch of the same cells, each molecule of which is kept with a probability.

        What is no number of molecules stays as it is. Of detection each is kept as if of one molecule.
        """
        if share == 1:
            return tensors
        thinned = {}
        for name in self.module.likelihoods:
            counts = dense(tensors[name]).float()
            if bool((counts == counts.round()).all()):
                counts = torch.binomial(counts, torch.full_like(counts, share))
            thinned[name] = counts
        if self.module.options.given_size:
            # a factor says how deep a cell is, too
            key = REGISTRY_KEYS.SIZE_FACTOR_KEY
            thinned[key] = tensors[key] * share
        return tensors | thinned
