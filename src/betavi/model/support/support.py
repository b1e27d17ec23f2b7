"""Whether a cell is a possible one: density and reconstruction, as a calibrated p-value."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from betavi.diagnostics import CellScores
from betavi.model.core._transition import in_turn, refuse_minified
from betavi.model.core.density import CELLS_AT_ONCE
from betavi.model.setup.messages import name_some, warn
from betavi.model.setup.selection import cells_named
from betavi.model.setup.transaction import untouched_on_failure
from betavi.model.support.calibration import EVERYONE, CalibrateMixin

if TYPE_CHECKING:
    from collections.abc import Sequence

    from scvi._types import AnnOrMuData

    from betavi.diagnostics import LatentDensity


class SupportMixin(CalibrateMixin):
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
        features that are explained worst; both compared with what is usual at its depth. The p-value is
        the share of the cells held out from training, with fewer molecules where they are deeper, that
        are as strange or stranger: of a cell like them it is below 0.05 in about one of twenty. Cells of
        a joint model are compared with others that have the same modalities, if a hundred of these were
        held out. Counts are compared with eight that are drawn, of every cell from the same random
        numbers, so that its p-value does not depend on which cells are asked about along with it.

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
        by how many nats the counts are explained worse than drawn ones, and ``strangeness``, above 0
        and without an upper end. Indexed by the names of the cells. Cells without counts have NaN, and
        a warning names those that are twice as deep as any that p-values were calibrated with, or half
        as deep.

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
            return self._support_of_positions(self._checked_positions(latent), show_progress)
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
        calibrations = self._calibrations(show_progress)
        density = self.latent_density(show_progress)
        scores, pattern, is_empty = self._judged(adata, cells, density, show_progress)
        table = pd.DataFrame(scores._asdict(), index=adata.obs_names[cells])
        table = table.drop(columns="log_depth").assign(strangeness=0.0, p_value=1.0)
        is_beyond = np.zeros(len(table), dtype=bool)
        for code in np.unique(pattern):
            mine = pattern == code
            known = calibrations.get(int(code), calibrations[EVERYONE])
            table.loc[mine, "strangeness"] = known.strangeness(scores.of(mine))
            table.loc[mine, "p_value"] = known.p_value(scores.of(mine))
            is_beyond[mine] = known.is_beyond(scores.of(mine))
        table.loc[is_empty, ["excess", "strangeness", "p_value"]] = np.nan
        _tell_of_depths(table.index, is_empty, is_beyond & ~is_empty)
        return table

    def _judged(
        self,
        adata: AnnOrMuData,
        cells: np.ndarray,
        density: LatentDensity,
        show_progress: bool,
    ) -> tuple[CellScores, np.ndarray, np.ndarray]:
        """Return scores of cells, what each has, and which have no counts at all."""
        loader = self._make_data_loader(adata, cells, batch_size=CELLS_AT_ONCE)
        parts, patterns, depths = [], [], []
        with self._drawing(0):
            for tensors in in_turn(loader, "Judging cells", show_progress):
                parts.append(self._scores(tensors, density))
                patterns.append(self._pattern(tensors))
                depths.append(self._depth(tensors).cpu().numpy())
        is_empty = self._counts_are_depth & (np.concatenate(depths) <= 0)
        return CellScores.joined(parts), np.concatenate(patterns), is_empty

    def _support_of_positions(self, positions: np.ndarray, show_progress: bool) -> pd.DataFrame:
        log_density = self.latent_density(show_progress).log_prob(positions)
        p_value = self._density_calibration(show_progress).p_value(log_density)
        return pd.DataFrame({"log_density": log_density, "p_value": p_value})


def _tell_of_depths(names: pd.Index, is_empty: np.ndarray, is_beyond: np.ndarray) -> None:
    """Warn of cells of which nothing can be said, or nothing that was calibrated."""
    if is_empty.any():
        warn(
            f"{is_empty.sum()} cell(s) without counts have no p-value: {name_some(names[is_empty])}."
        )
    if is_beyond.any():
        warn(
            f"{is_beyond.sum()} cell(s) are more than twice as deep as any that p-values were calibrated "
            f"with, or less than half as deep as any, and judged as if they were not: "
            f"{name_some(names[is_beyond])}."
        )
