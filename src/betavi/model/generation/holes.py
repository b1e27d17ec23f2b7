"""Regions between cells where there are none, and what the decoder would put there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from betavi.diagnostics import find_holes
from betavi.model.core.density import MOST_CELLS
from betavi.model.generation.decoded_points import LandscapeMixin, Points, place_of
from betavi.model.io.writer import Cells

if TYPE_CHECKING:
    from collections.abc import Mapping

HOLE_LEVEL = 0.01
"""Share of the cells held out that are in a hole by this measure."""


class HolesMixin(LandscapeMixin[Cells]):
    """``find_holes``."""

    def find_holes(
        self,
        level: float = HOLE_LEVEL,
        batch: str | int | None = None,
        library_size: float | Mapping[str, float] | None = None,
        seed: int = 0,
        show_progress: bool = True,
    ) -> Cells:
        """Return regions of the latent space with cells on all sides and none inside.

        Parameters
        ----------
        level
            Thin is where fewer than this share of the cells held out are.
        batch, library_size
            What is decoded, as of :meth:`interpolate`.
        seed
            Of the lines between cells on which they are looked for.
        show_progress
            Show bars.

        Returns
        -------
        One row a hole, the largest first, as those of :meth:`interpolate`: what the decoder would put
        there. ``obs`` also has ``depth``, the share of the cells beyond it in whichever direction,
        ``share``, that of the lines between two cells that lead through it, and ``start`` and ``end``,
        two of them. No rows if there is none.

        Raises
        ------
        ValueError
            If the level is no share, or the batch or the size means nothing.

        References
        ----------
        Tukey (1975), Mathematics and the picturing of data.

        Examples
        --------
        >>> import betavi
        >>> adata = betavi.datasets.simulate_counts(n_cells=200, n_genes=20)
        >>> betavi.BetaVI.setup_anndata(adata)
        >>> model = betavi.BetaVI(adata, n_latent=3)
        >>> model.train(max_epochs=1, enable_progress_bar=False)
        >>> model.find_holes(show_progress=False).n_vars
        20
        """
        self._check_if_trained(warn=False)
        if not 0 < level < 1:
            raise ValueError(f"level is a share of the cells, between 0 and 1, not {level!r}.")
        wanted = self._wanted(batch, library_size)
        land = self._landscape(show_progress)
        some = np.random.default_rng(seed).permutation(len(land.mean))[:MOST_CELLS]
        thin_below = land.calibration.thin_below(level)
        found = find_holes(land.density, land.mean[some], thin_below, seed)
        decoded = self._decoded_at(land, found.centres, wanted, show_progress)
        names = [f"hole_{number}" for number in range(len(found.centres))]
        obs = place_of(land, found.centres, names)
        obs = obs.assign(depth=found.depth, share=found.share)
        for word, cells in zip(("start", "end"), found.ends.T, strict=True):
            obs[word] = land.names[some[cells]].to_numpy()
        return self._as_cells(Points(obs, found.centres, decoded))
