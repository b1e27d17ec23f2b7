"""Cells that no one has measured."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from scipy import sparse
from scvi import REGISTRY_KEYS
from scvi.utils import track

from betavi.model.draws import DrawsMixin, Order, no_cells
from betavi.model.grown import ONLY, Grown
from betavi.model.positions import CELLS_AT_ONCE
from betavi.module.single import COUNTS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from anndata import AnnData
    from torch import Tensor

    from betavi.diagnostics import LatentDensity


class Chunk(NamedTuple):
    """Some generated cells: counts in CSR, positions, and the measured cells that they are after.

    ``pattern`` has their covariates, ``lender`` their label and, unless another was asked for, their
    size. ``size`` is the one that they were decoded with.
    """

    counts: sparse.csr_matrix
    z: np.ndarray
    pattern: np.ndarray
    lender: np.ndarray
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
            As if of this one; those of measured cells drawn at random if None, with their further
            covariates.
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
            depth it is seen at. If None, that of a measured cell of the batch that is near. Of a ``"normal"`` likelihood what
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
        read the cells: covariates of a measured cell, the label of one that is near, ``nearest_cell``,
        and the size factor that was decoded. Positions are in ``obsm["z"]``, those of a logistic normal
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
        ((50, 20), ['nearest_cell', 'batch'])
        """
        self._check_if_trained(warn=False)
        totals = self._wanted_totals(library_size)
        adata = self._validate_anndata(None)
        order = self._order(n_cells, batch, source, cells, latent, seed, totals)
        grown = Grown(self._frame(adata, order), out)
        density = self._density_of(order, show_progress)
        bar = track(
            self._generated(order, density),
            description="Generating",
            total=-(-len(order.pattern) // CELLS_AT_ONCE),
            disable=not show_progress,
        )
        with self._drawing(order.seed), grown:
            for chunk in bar:
                grown.add({ONLY: chunk.counts}, self._obs(adata, order, chunk), chunk.z)
        return grown.whole()

    def _wanted_totals(self, library_size: Any) -> dict[str, Any]:
        if library_size is None:
            return {}
        self._check_size_of(COUNTS, library_size)
        return {COUNTS: library_size}

    @torch.inference_mode()
    def _generated(self, order: Order, density: LatentDensity | None) -> Iterator[Chunk]:
        lenders = self._lenders(order)
        sizes = None if lenders is None else self._log_sizes_of(lenders.cells)
        for pattern, tensors, positions, totals in self._chunks(order, density):
            if lenders is None or sizes is None:
                lender, log_size = pattern, self._log_sizes(tensors)
            else:
                near = lenders.near(positions, tensors)
                lender = lenders.cells[near]
                log_size = torch.as_tensor(sizes[near], device=self.device)
            tensors = tensors | self._labels_of(lender)
            z = self._decoder_reads(positions)
            counts, size = self._counts_at(z, tensors, log_size, totals.get(COUNTS))
            yield Chunk(counts, positions.astype(np.float32), pattern, lender, size)

    def _log_sizes_of(self, cells: np.ndarray) -> np.ndarray:
        """Return the log sizes of measured cells, ``(n_cells, 1)``."""
        loader = self._make_data_loader(self.adata, cells, batch_size=CELLS_AT_ONCE)
        return np.concatenate([self._log_sizes(tensors).cpu().numpy() for tensors in loader])

    def _log_sizes(self, tensors: dict[str, Any]) -> Tensor:
        """Return the log sizes that cells are decoded with, ``(n_cells, 1)``."""
        if self._reads_factors:
            factor: Tensor = tensors[REGISTRY_KEYS.SIZE_FACTOR_KEY].to(self.device).float()
            return factor.log()
        inferred = self._inferred(tensors)
        library: Tensor = inferred["library"] if inferred["ql"] is None else inferred["ql"].loc
        return library

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

    @property
    def _reads_factors(self) -> bool:
        """Whether the sizes are factors that were given, and not totals."""
        return bool(self.module.options.given_size)

    def _frame(self, adata: AnnData, order: Order) -> AnnData:
        """Return an object without cells, that knows the genes and what is generated."""
        layer = self.registry_["setup_args"]["layer"]
        empty = no_cells(adata.var_names, layer)
        empty.uns["betavi"] = {"generated": order.said}
        return empty

    def _obs(self, adata: AnnData, order: Order, chunk: Chunk) -> pd.DataFrame:
        obs = pd.DataFrame({"nearest_cell": adata.obs_names[chunk.lender].to_numpy()})
        obs = obs.join(self._registered(order, chunk.pattern, chunk.lender))
        key = self.registry_["setup_args"]["size_factor_key"]
        return obs if key is None else obs.assign(**{key: chunk.size})
