"""How strange cells are that are known to be possible: those held out from training."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scvi import REGISTRY_KEYS

from betavi.diagnostics import CellScores, SupportCalibration
from betavi.kernels import dense, totals
from betavi.model.messages import warn
from betavi.model.positions import CELLS_AT_ONCE, PositionsMixin, in_turn
from betavi.module import present_key

if TYPE_CHECKING:
    from scvi._types import AnnOrMuData
    from torch import Tensor

    from betavi.diagnostics import LatentDensity

KEPT = (1.0, 0.5, 0.25, 0.125)
"""Shares of their molecules that known cells are given, to know what is usual of shallow ones."""

N_REPLICATES = 8
"""Cells drawn from what a position decodes to, beside which its counts are set."""

N_WORST = 50
"""Features of a cell, those explained worst, that are to say whether it is explained at all: what a
type that the model has not seen is known by drowns in the noise of thousands of others."""

LEAST_TRAINED = 0.5
"""Share of the cells that are to train a model at least."""

MOST_KNOWN, ENOUGH_KNOWN = 2000, 100
EVERYONE = -1
SMALLEST_SPREAD = 1e-3
"""Nats; of a cell that was drawn as if certain, such as one without counts."""


class CalibrateMixin(PositionsMixin):
    """Scores of cells, and what is usual of them."""

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
        cells = self._known_cells(adata)
        log_density = density.log_prob(self._posteriors(adata, cells, n_draws=0).mean)
        scores, pattern = self._known_scores(adata, cells, density, show_progress)
        found = {EVERYONE: SupportCalibration(scores, log_density)}
        for code in np.unique(pattern):
            mine = pattern == code
            if ENOUGH_KNOWN <= mine.sum() < len(mine):
                found[int(code)] = SupportCalibration(scores.of(mine), log_density[mine])
        return found

    def _known_cells(self, adata: AnnOrMuData) -> np.ndarray:
        cells = self._cells_to_judge(adata)
        if self._has_seen(adata, cells):
            warn(
                "The model held too few cells out to know how strange unseen cells of the same kind "
                "are: p-values come from cells that training saw, and are too small for others. "
                f"{_advice(adata.n_obs)}"
            )
        return np.sort(np.random.default_rng(0).permutation(cells)[:MOST_KNOWN])

    def _known_scores(
        self, adata: AnnOrMuData, cells: np.ndarray, density: LatentDensity, show_progress: bool
    ) -> tuple[CellScores, np.ndarray]:
        """Return scores of copies of cells, ``(n_copies, n_cells)``, and what each cell has."""
        if self.minified_data_type is not None:
            nothing = np.zeros((1, 0))
            return CellScores(nothing, nothing, nothing), np.zeros(0, dtype=int)
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
        return tensors | thinned

    @torch.inference_mode()
    def _scores(self, tensors: dict[str, Any], density: LatentDensity) -> CellScores:
        """Judge the cells of a minibatch."""
        inferred = self._inferred(tensors)
        mean = inferred["qz"].mean
        at_mean = inferred | {"z": self.module.latent.transform(mean)}
        inputs = self.module._get_generative_input(tensors, at_mean)
        generated = self.module._named(self.module.generative(**inputs))
        observed, drawn = self._surprises(tensors, generated["px"])
        spread = drawn.std(dim=0).clamp_min(SMALLEST_SPREAD)
        excess = (observed - drawn.mean(dim=0)) / spread
        parts = [totals(tensors[name]) for name in self._measures_of_depth]
        log_depth = torch.cat(parts, dim=1).sum(dim=1).clamp_min(1.0).log()
        log_density = density.log_prob(mean.cpu().numpy())
        others = (part.double().cpu().numpy() for part in (excess, log_depth))
        return CellScores(log_density, *others)

    @property
    def _measures_of_depth(self) -> list[str]:
        """Modalities whose counts say how deep a cell was sequenced: all if none are counts."""
        parts = self.module.likelihoods
        return [name for name, part in parts.items() if part.is_of_counts] or list(parts)

    def _surprises(self, tensors: dict[str, Any], px: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """Return nats of the worst features of measured and of drawn counts.

        ``(n_cells,)`` and ``(n_draws, n_cells)``.
        """
        observed, drawn = [], []
        for name, distribution in px.items():
            key = present_key(name)
            present = tensors[key].to(self.device).squeeze(-1).float() if key in tensors else 1.0
            replicates = [self._drawn_from(name, distribution) for _ in range(N_REPLICATES)]
            counts = dense(tensors[name]).to(self.device)
            observed.append(_of_worst(distribution, counts) * present)
            drawn.append(torch.stack([_of_worst(distribution, x) for x in replicates]) * present)
        return torch.stack(observed).sum(dim=0), torch.stack(drawn).sum(dim=0)

    def _drawn_from(self, name: str, px: Any) -> Tensor:
        """Draw features; a normal distribution of counts may go below zero, where none are."""
        drawn: Tensor = px.sample()
        return drawn.clamp_min(0) if self.module.likelihoods[name].is_of_counts else drawn


def _of_worst(px: Any, x: Tensor) -> Tensor:
    """Return the nats of the features that are explained worst, ``(n_cells,)``."""
    nats = -px.log_prob(x)
    worst: Tensor = nats.topk(min(N_WORST, nats.shape[-1]), dim=-1)[0]
    return worst.sum(dim=-1)


def _advice(n_cells: int) -> str:
    """Say how to hold enough cells out, of as many as there are."""
    size = np.floor(100 * (1 - ENOUGH_KNOWN / n_cells)) / 100
    if size < LEAST_TRAINED:
        return f"{ENOUGH_KNOWN} are enough, which {n_cells} cells cannot spare."
    return f"{ENOUGH_KNOWN} are enough: train(train_size={size:.2g})."
