"""Ways between cells, and the cell at the centre."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy.spatial.distance import cdist
from scvi import REGISTRY_KEYS

from betavi._tables import check_whole, lookup
from betavi.diagnostics import LatentDensity, along_density, genes_on_path, straight
from betavi.model.core._transition import refuse_minified
from betavi.model.generation.decoded_points import ROWS_AT_ONCE, LandscapeMixin, Points, place_of
from betavi.model.io.writer import Cells
from betavi.model.setup.messages import warn
from betavi.model.setup.selection import cells_named

if TYPE_CHECKING:
    from collections.abc import Mapping

    from betavi.model.generation.decoded_points import Landscape


def _straight(
    start: np.ndarray, end: np.ndarray, n_steps: int, _density: LatentDensity, _nodes: np.ndarray
) -> np.ndarray:
    return straight(start, end, n_steps)


PATHS: dict[str, Any] = {"straight": _straight, "density": along_density}
"""Ways from one position to another, by the user's word."""

MOST_NODES = 3000
"""Cells that a path may lead through; of more, these are drawn."""

MOST_COMPARED = 1000


class InterpolateMixin(LandscapeMixin[Cells]):
    """``interpolate`` and ``archetype``."""

    def interpolate(
        self,
        start: Any,
        end: Any,
        n_steps: int = 32,
        path: str = "straight",
        batch: str | int | None = None,
        library_size: float | Mapping[str, float] | None = None,
        show_progress: bool = True,
    ) -> Cells:
        """Walk from one state to another, and say at each step what a cell there would be.

        Parameters
        ----------
        start, end
            A cell, by name or position; several, by names, positions or a mask, of which the medoid
            is taken; or a latent position, ``(n_latent,)`` of floating-point numbers.
        n_steps
            Number of steps, both ends included, evenly spaced in the latent space.
        path
            ``"straight"``; or ``"density"``, the shortest where a length costs more the fewer cells
            there are, which goes round holes.
        batch
            Decode as if in this batch; the average over all if None. What differs between batches then
            does not change on the way: a condition that you study is no batch.
        library_size
            Expected total, of a joint model by modality; the median of the cells if None.
        show_progress
            Show bars.

        Returns
        -------
        One row a step, of a joint model in every modality: expected expression in ``X``, and in
        ``layers["std"]`` by how much it would differ within the posterior of a cell there. In ``obs``
        the share of the way ``step``, ``log_density`` and ``p_value`` as of :meth:`support`,
        ``nearest_cell`` with its ``distance``, and ``uncertainty``, the mean standard deviation of log
        expression, or of the probability of detection. In ``var`` what each gene does: see
        :func:`betavi.diagnostics.genes_on_path`. Positions are in ``obsm["z"]``, those of a logistic
        normal before the softmax. Of a deterministic autoencoder nothing is uncertain, and ``std`` is 0.

        Raises
        ------
        ValueError
            If a word, a batch or a number means nothing, or both ends are the same place.
        KeyError, IndexError
            If a cell does not exist.

        References
        ----------
        Bijral, Ratliff & Srebro (2011), Semi-supervised learning with density based distances.

        Examples
        --------
        >>> import betavi
        >>> adata = betavi.datasets.simulate_counts(n_cells=200, n_genes=20)
        >>> betavi.BetaVI.setup_anndata(adata)
        >>> model = betavi.BetaVI(adata, n_latent=3)
        >>> model.train(max_epochs=1, enable_progress_bar=False)
        >>> ends = adata.obs_names[:2]
        >>> way = model.interpolate(*ends, n_steps=5, show_progress=False)
        >>> way.shape, way.obs["step"].tolist()
        ((5, 20), [0.0, 0.25, 0.5, 0.75, 1.0])
        """
        self._check_if_trained(warn=False)
        walk = lookup(PATHS, path, "path")
        check_whole("n_steps", n_steps)
        if n_steps < 2:
            raise ValueError("n_steps=1: a path has two ends at least.")
        wanted = self._wanted(batch, library_size)
        land = self._landscape(show_progress)
        cells = [_cells_at(land, end, word) for end, word in ((start, "start"), (end, "end"))]
        ends = [self._place(land, end, some) for end, some in zip((start, end), cells, strict=True)]
        if np.allclose(ends[0], ends[1]):
            raise ValueError("start and end are the same place: there is no way between them.")
        if batch is None:
            self._tell_of_batches(*cells)
        nodes = land.mean[np.random.default_rng(0).permutation(len(land.mean))[:MOST_NODES]]
        points = walk(*ends, n_steps, land.density, nodes)
        decoded = self._decoded_at(land, points, wanted, show_progress)
        obs = place_of(land, points, [f"step_{number}" for number in range(n_steps)])
        obs.insert(0, "step", np.linspace(0, 1, n_steps))
        var = {
            name: genes_on_path(part.mean, part.std, pd.Index(self._features(name)))
            for name, part in decoded.items()
        }
        return self._as_cells(Points(obs, points, decoded, var, {"path": path}))

    def _place(self, land: Landscape, end: Any, cells: np.ndarray | None) -> np.ndarray:
        """Return the position of an end, which is that of cells or a position itself."""
        if cells is None:
            return self._checked_positions(end)[0]
        some = land.mean[cells]
        return some[_medoid(some)]

    def _tell_of_batches(self, start: np.ndarray | None, end: np.ndarray | None) -> None:
        """Warn where what tells two groups of cells apart is the batch, over which is averaged."""
        if start is None or end is None or min(len(start), len(end)) < 2:
            return
        batch = self.adata_manager.get_from_registry(REGISTRY_KEYS.BATCH_KEY).ravel()
        if not np.intersect1d(batch[start], batch[end]).size:
            warn(
                "No batch has cells of both ends, and expression is averaged over batches: what "
                "differs between these batches does not change on the way. If that is what you "
                "study, train without it as batch_key; batch=... decodes as in one of them."
            )

    def archetype(
        self,
        batch: str | int | None = None,
        library_size: float | Mapping[str, float] | None = None,
        show_progress: bool = True,
    ) -> Cells:
        """Return the cell at the centre of the prior, beside two others that stand for all.

        The archetype is what the decoder makes of the prior's mean, the place that the rate pulls every
        cell to. It need not be like any cell: see its ``p_value``. The mean is that of the counts per
        total, a mixture of all types; of detection that of what was seen, of proteins that of the
        counts. The medoid is a measured cell, the one in the middle of the others.

        Parameters
        ----------
        batch
            Decode as if in this batch; the average over all if None. The mean is of its cells.
        library_size
            Expected total, of a joint model by modality; the median of the cells if None.
        show_progress
            Show bars.

        Returns
        -------
        Three rows, ``archetype``, ``mean`` and ``medoid``, as those of :meth:`interpolate`. The mean
        has no position of its own: it is that of the cells' positions.

        Raises
        ------
        ValueError
            If the batch or the size means nothing, the object is minified, so that there are no counts,
            or the model is a deterministic autoencoder.

        Examples
        --------
        >>> import betavi
        >>> adata = betavi.datasets.simulate_counts(n_cells=200, n_genes=20)
        >>> betavi.BetaVI.setup_anndata(adata)
        >>> model = betavi.BetaVI(adata, n_latent=3)
        >>> model.train(max_epochs=1, enable_progress_bar=False)
        >>> model.archetype(show_progress=False).obs_names.tolist()
        ['archetype', 'mean', 'medoid']
        """
        self._check_if_trained(warn=False)
        refuse_minified(self)
        if self.module.latent.is_deterministic:
            raise ValueError(
                "A deterministic autoencoder was not trained towards any prior, so that the centre of "
                "one says nothing. The medoid is what is left: interpolate() takes that of a group."
            )
        wanted = self._wanted(batch, library_size)
        land = self._landscape(show_progress)
        cells = self._of_batch(batch)
        mean = land.mean[cells]
        points = np.vstack([self._prior_mean(), mean.mean(axis=0), mean[_medoid(mean)]])
        decoded = self._decoded_at(land, points, wanted, show_progress)
        for name, found in decoded.items():
            found.mean[1] = self._mean_profile(name, cells, found.mean[0].sum())
            found.std[1] = np.nan
        obs = place_of(land, points, ["archetype", "mean", "medoid"])
        return self._as_cells(Points(obs, points, decoded))


def _cells_at(land: Landscape, end: Any, word: str) -> np.ndarray | None:
    """Return the cells of an end, or None if it is a position."""
    values = np.asarray(end)
    if values.dtype.kind != "f":
        return cells_named(land.names, end, word)
    if values.ndim > 1 and len(values) > 1:
        raise ValueError(f"{word} is one position, not {len(values)}; or names of cells.")
    return None


def _medoid(positions: np.ndarray) -> int:
    """Return which position is nearest to the others; to some of them, drawn, if they are many."""
    some = positions[np.random.default_rng(0).permutation(len(positions))[:MOST_COMPARED]]
    parts = np.array_split(positions, max(1, len(positions) // ROWS_AT_ONCE))
    return int(np.concatenate([cdist(part, some).sum(axis=1) for part in parts]).argmin())
