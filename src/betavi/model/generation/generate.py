"""Cells that no one has measured."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from scipy import sparse
from scvi.utils import track

from betavi.data import COUNTS
from betavi.model.core.density import CELLS_AT_ONCE
from betavi.model.generation.sources import DrawsMixin, Order, no_cells
from betavi.model.io.writer import CellChunk, collect, new_file

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from anndata import AnnData
    from torch import Tensor

    from betavi.diagnostics import LatentDensity


class Chunk(NamedTuple):
    """Some generated cells: counts in CSR, positions, and measured cells that are near.

    ``near`` have their covariates, their label and, unless another was asked for, their size. ``size``
    is the one that they were decoded with.
    """

    counts: sparse.csr_matrix
    z: np.ndarray
    near: np.ndarray
    size: np.ndarray


class GenerateMixin(DrawsMixin):
    """``generate`` of one modality."""

    def generate(
        self,
        n_cells: int | None = None,
        batch: str | int | None = None,
        source: str = "prior",
        cells: Any = None,
        latent: np.ndarray | None = None,
        library_size: float | np.ndarray | None = None,
        seed: int | None = None,
        out: str | Path | None = None,
        show_progress: bool = True,
    ) -> AnnData | None:
        """Draw cells: positions, sizes given those, and counts from what the decoder makes of both.

        Parameters
        ----------
        n_cells
            How many; as many as there are ``cells`` or positions if None.
        batch
            As if of this one: covariates, sizes and labels are those of cells of it that are near, while
            positions are those of all batches. With ``source="cells"`` it is around cells of this batch,
            unless ``cells`` are named, which are then decoded as if in it. If None, a cell has the batch
            and the further covariates of a measured one that is near.
        source
            ``"prior"``: a cell the model thinks possible before it has seen any. ``"aggregate"``: from
            a density fitted to where cells are (:meth:`latent_density`), so neither into the holes
            between them nor the same cells again. ``"cells"``: from the posteriors of measured cells,
            which have their sizes.
        cells
            Around these only, with ``source="cells"``: names, positions or a mask.
        latent
            At these positions instead, ``(n, n_latent)``, each in its turn.
        library_size
            Expected total of every cell, or of each, ``(n_cells,)``; of detection, ``"bernoulli"``, the
            depth it is seen at. If None, that of a measured cell that is near. Of a ``"normal"`` likelihood what
            is drawn below zero is cut off, so that its totals are larger.
        seed
            Of the draws; ``scvi.settings.seed`` if None. The generator of torch is left as it was.
        out
            Write a file instead, chunk by chunk: ``"x.h5ad"`` or ``"x.zarr"``.
        show_progress
            Show a bar.

        Returns
        -------
        Counts in ``X``, CSR, with the columns of ``obs`` that the model was set up with, so that it can
        read the cells: covariates and label of ``near_cell``, one of fifteen measured cells that are
        nearest, or that around which it was drawn; and the size factor that was decoded. Positions are in ``obsm["z"]``, those of a logistic normal
        before the softmax. None if a file was written.

        Raises
        ------
        ValueError
            If there are to be no cells, a word, a batch or a position means nothing, the prior of an
            autoencoder is asked for, or a size of a model that reads none, or not one for each cell.
        KeyError, IndexError
            If a cell does not exist.
        FileExistsError
            If there is a file of that name.

        Examples
        --------
        >>> import betavi
        >>> adata = betavi.datasets.simulate_counts(n_cells=200, n_genes=20)
        >>> betavi.BetaVI.setup_anndata(adata, batch_key="batch")
        >>> model = betavi.BetaVI(adata, n_latent=3)
        >>> model.train(max_epochs=1, enable_progress_bar=False)
        >>> new = model.generate(50, source="aggregate", library_size=500, show_progress=False)
        >>> new.shape, new.obs.columns.tolist()
        ((50, 20), ['near_cell', 'batch'])
        """
        self._check_if_trained(warn=False)
        totals = self._wanted_totals(library_size)
        adata = self._validate_anndata(None)
        order = self._order(n_cells, batch, source, cells, latent, seed, totals)
        empty = self._frame(adata, order)
        writer = None if out is None else new_file(empty, out)
        density = self._density_of(order, show_progress)
        bar = track(
            self._generated(order, density),
            description="Generating",
            total=-(-order.n_cells // CELLS_AT_ONCE),
            disable=not show_progress,
        )
        chunks = (
            CellChunk({COUNTS: chunk.counts}, self._obs(adata, order, chunk), chunk.z)
            for chunk in bar
        )
        with self._drawing(order.seed):
            return collect(empty, chunks, writer)

    def _wanted_totals(self, library_size: Any) -> dict[str, Any]:
        if library_size is None:
            return {}
        self._check_size_of(COUNTS, library_size)
        return {COUNTS: library_size}

    @torch.inference_mode()
    def _generated(self, order: Order, density: LatentDensity | None) -> Iterator[Chunk]:
        for near, tensors, positions, totals in self._drafts(order, density):
            z = self._decoder_reads(positions)
            log_size = self._log_sizes(tensors)
            counts, size = self._counts_at(z, tensors, log_size, totals.get(COUNTS))
            yield Chunk(counts, positions.astype(np.float32), near, size)

    def _counts_at(
        self, z: Tensor, tensors: dict[str, Any], log_size: Tensor, total: Tensor | None
    ) -> tuple[sparse.csr_matrix, np.ndarray]:
        """Draw counts of cells whose expected totals are their sizes; return the sizes decoded."""
        wanted = log_size if total is None else total.to(log_size).log()
        reads_size = self.module.likelihoods[COUNTS].reads_size
        if reads_size and (total is not None or not self._reads_factors):
            log_size = self._sized(COUNTS, z, tensors, log_size, wanted)
        px = self._px(z, tensors, COUNTS, log_size)
        counts = sparse.csr_matrix(self._drawn_from(COUNTS, px).cpu().numpy())
        return counts, log_size.exp().cpu().numpy().ravel()

    def _frame(self, adata: AnnData, order: Order) -> AnnData:
        """Return an object without cells, that knows the genes and what is generated."""
        layer = self.registry_["setup_args"]["layer"]
        empty = no_cells(adata.var_names, layer)
        empty.uns["betavi"] = {"generated": order.said}
        return empty

    def _obs(self, adata: AnnData, order: Order, chunk: Chunk) -> pd.DataFrame:
        obs = pd.DataFrame({"near_cell": adata.obs_names[chunk.near].to_numpy()})
        obs = obs.join(self._registered(order, chunk.near))
        key = self.registry_["setup_args"]["size_factor_key"]
        return obs if key is None else obs.assign(**{key: chunk.size})
