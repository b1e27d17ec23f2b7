"""Is this a possible cell? Density and reconstruction, as a calibrated p-value."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from scvi import REGISTRY_KEYS
from scvi.utils import track

from betavi.diagnostics import CellScores, SupportCalibration
from betavi.kernels import dense, totals
from betavi.model.cells import cells_named
from betavi.model.messages import warn
from betavi.model.minified import refuse_minified
from betavi.model.positions import CELLS_AT_ONCE, PositionsMixin
from betavi.model.setup import untouched_on_failure
from betavi.module import present_key

if TYPE_CHECKING:
    from collections.abc import Sequence

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

MOST_KNOWN, ENOUGH_KNOWN = 2000, 100
EVERYONE = -1
SMALLEST_SPREAD = 1e-3
"""Nats; of a cell that was drawn as if certain, such as one without counts."""


class SupportMixin(PositionsMixin):
    """``support`` of cells and of positions."""

    def support(
        self,
        adata: AnnOrMuData | None = None,
        latent: np.ndarray | None = None,
        indices: Sequence[int] | np.ndarray | None = None,
        show_progress: bool = True,
    ) -> pd.DataFrame:
        """Say of each cell, or of each latent position, whether it is a possible one.

        A cell is strange if it lies where the aggregate posterior is thin, or if its counts are
        explained worse than counts that are drawn from what its position decodes to, in the fifty
        features that are explained worst; both compared with what is usual at its depth. The p-value is the share of the cells held out from training,
        with fewer molecules where they are deeper, that are as strange or stranger: of a cell like them
        it is below 0.05 in about one of twenty. Cells of a joint model are compared with others that
        have the same modalities, if a hundred of these were held out.

        Parameters
        ----------
        adata
            Cells; those of the model's own object if None.
        latent
            Positions instead, ``(n, n_latent)``; there are no counts, and the density alone is
            judged, by that at the posterior means of the cells held out. Positions that were drawn lie
            farther out than means.
        indices
            Only these cells: names, positions or a mask.
        show_progress
            Show a bar.

        Returns
        -------
        ``log_density`` of the posterior's mean, in nats, and ``p_value``; of cells also ``excess``,
        by how many standard deviations the counts are explained worse than drawn ones, and
        ``strangeness``, which has no upper end. Indexed by the names of the cells.

        Raises
        ------
        ValueError
            If both cells and positions are given, positions have another number of dimensions or are
            not finite, or counts are asked of a minified object.
        KeyError, IndexError
            If a cell does not exist.

        References
        ----------
        Bates et al. (2023), Testing for outliers with conformal p-values. Nalisnick et al. (2019), Do
        deep generative models know what they don't know?, on why a density of data is not enough.

        Examples
        --------
        >>> import betavi
        >>> adata = betavi.datasets.simulate_counts(n_cells=300, n_genes=20)
        >>> betavi.BetaVI.setup_anndata(adata)
        >>> model = betavi.BetaVI(adata, n_latent=3)
        >>> model.train(max_epochs=1, enable_progress_bar=False)
        >>> found = model.support(show_progress=False)
        >>> found.shape, bool(found["p_value"].between(0, 1).all())
        ((300, 4), True)
        """
        self._check_if_trained(warn=False)
        if latent is not None:
            if adata is not None or indices is not None:
                raise ValueError("Cells or positions: give adata (and indices), or latent.")
            return self._support_of_positions(self._checked_positions(latent))
        refuse_minified(self)
        with untouched_on_failure(self.adata if adata is None else adata):
            adata = self._validate_anndata(adata)
            names = adata.obs_names
            cells = (
                np.arange(len(names)) if indices is None else cells_named(names, indices, "indices")
            )
            return self._support_of_cells(adata, cells, show_progress)

    def _support_of_cells(
        self, adata: AnnOrMuData, cells: np.ndarray, show_progress: bool
    ) -> pd.DataFrame:
        calibrations, density = self._calibrations(), self.latent_density()
        loader = self._make_data_loader(adata, cells, batch_size=CELLS_AT_ONCE)
        parts = []
        with self._drawing(0):
            for tensors in track(loader, description="Judging cells", disable=not show_progress):
                parts.append((self._scores(tensors, density), self._pattern(tensors)))
        scores = CellScores.joined([part for part, _ in parts])
        pattern = np.concatenate([code for _, code in parts])
        table = pd.DataFrame(scores._asdict(), index=adata.obs_names[cells])
        table = table.drop(columns="log_depth").assign(strangeness=0.0, p_value=1.0)
        for code in np.unique(pattern):
            mine = pattern == code
            known = calibrations.get(int(code), calibrations[EVERYONE])
            table.loc[mine, "strangeness"] = known.strangeness(scores.of(mine))
            table.loc[mine, "p_value"] = known.p_value(scores.of(mine))
        return table

    def _support_of_positions(self, positions: np.ndarray) -> pd.DataFrame:
        log_density = self.latent_density().log_prob(positions)
        p_value = self._calibration().p_value_of_positions(log_density)
        return pd.DataFrame({"log_density": log_density, "p_value": p_value})

    def _checked_positions(self, latent: Any) -> np.ndarray:
        """Return positions as an array of ``(n, n_latent)``."""
        positions = np.atleast_2d(np.asarray(latent, dtype=np.float64))
        n_latent = self.module.options.n_latent
        if positions.ndim != 2 or positions.shape[1] != n_latent:
            raise ValueError(
                f"Positions are (n, {n_latent}) in this model, not {np.shape(latent)}: as "
                "get_latent_representation() returns them."
            )
        is_simplex = (positions >= 0).all() and np.allclose(positions.sum(axis=1), 1, atol=1e-3)
        if self.module.options.latent_distribution == "ln" and is_simplex:
            raise ValueError(
                "Positions of a logistic normal z are those before the softmax, as "
                "get_latent_representation(return_dist=True) returns them."
            )
        if not np.isfinite(positions).all():
            row = int(np.flatnonzero(~np.isfinite(positions).all(axis=1))[0])
            raise ValueError(f"Position {row} is not finite.")
        return positions

    def _calibration(self) -> SupportCalibration:
        """Return what is known of all cells held out."""
        return self._calibrations()[EVERYONE]

    def _calibrations(self) -> dict[int, SupportCalibration]:
        """Return the scores of cells held out, by what was measured of them, and of all of them."""
        density = self.latent_density()
        kept: list[Any] = self.__dict__.setdefault("_kept_calibrations", [])
        if not kept or kept[0] is not density:
            adata = self._validate_anndata(None)
            cells = self._known_cells(adata)
            log_density = density.log_prob(self._posteriors(adata, cells).mean)
            scores, pattern = self._known_scores(adata, cells, density)
            found = {EVERYONE: SupportCalibration(scores, log_density)}
            for code in np.unique(pattern):
                mine = pattern == code
                if ENOUGH_KNOWN <= mine.sum() < len(mine):
                    part = SupportCalibration(scores.of(mine), log_density[mine])
                    found[int(code)] = part
            kept[:] = density, found
        calibrations: dict[int, SupportCalibration] = kept[1]
        return calibrations

    def _known_cells(self, adata: AnnOrMuData) -> np.ndarray:
        cells = self._cells_to_judge(adata)
        if self._has_seen(adata, cells):
            warn(
                "The model held too few cells out to know how strange unseen cells of the same kind "
                f"are: p-values come from cells that training saw, and are too small for others. "
                f"{ENOUGH_KNOWN} are enough: train with train_size=0.9 or less."
            )
        return np.sort(np.random.default_rng(0).permutation(cells)[:MOST_KNOWN])

    def _known_scores(
        self, adata: AnnOrMuData, cells: np.ndarray, density: LatentDensity
    ) -> tuple[CellScores, np.ndarray]:
        """Return scores of copies of cells, ``(n_copies, n_cells)``, and what each cell has."""
        if self.minified_data_type is not None:
            nothing = np.zeros((1, 0))
            return CellScores(nothing, nothing, nothing), np.zeros(0, dtype=int)
        parts, patterns = [], []
        with self._drawing(0):
            for tensors in self._make_data_loader(adata, cells, batch_size=CELLS_AT_ONCE):
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
        depth = sum(totals(tensors[name]).to(self.device) for name in self._measures_of_depth)
        log_density = density.log_prob(mean.cpu().numpy())
        return CellScores(
            log_density,
            ((observed - drawn.mean(dim=0)) / spread).cpu().numpy().astype(np.float64),
            torch.as_tensor(depth)
            .clamp_min(1.0)
            .log()
            .squeeze(-1)
            .cpu()
            .numpy()
            .astype(np.float64),
        )

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
