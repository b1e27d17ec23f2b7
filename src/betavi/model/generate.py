"""Cells that no one has measured."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from scipy import sparse
from scvi import REGISTRY_KEYS
from scvi.utils import track

from betavi.model.draws import DrawsMixin, Lenders, Order, registered_columns, some_of
from betavi.model.grown import Grown
from betavi.model.positions import CELLS_AT_ONCE
from betavi.module.single import COUNTS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from torch import Tensor


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
        library_size: float | None = None,
        seed: int | None = None,
        out: str | Path | None = None,
        show_progress: bool = True,
    ) -> AnnData | None:
        """Draw cells: positions, sizes given those, and counts from what the decoder makes of both.

        Parameters
        ----------
        n_cells
            How many; as many as positions if None.
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
            Expected total of every cell; of detection, ``"bernoulli"``, the depth it is seen at. If
            None, that of a measured cell of the batch that is near. Of a ``"normal"`` likelihood what
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
            autoencoder is asked for, or a size of a model that reads none.
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
        if library_size is not None:
            self._check_size_of(COUNTS, library_size)
        adata = self._validate_anndata(None)
        order = self._order(n_cells, batch, source, cells, latent, seed)
        grown = Grown(self._frame(adata, order), out)
        bar = track(
            self._generated(order, library_size),
            description="Generating",
            total=-(-len(order.pattern) // CELLS_AT_ONCE),
            disable=not show_progress,
        )
        with self._drawing(order.seed), grown:
            for chunk in bar:
                grown.add(chunk.counts, self._obs(adata, order, chunk), chunk.z)
        return grown.whole()

    @torch.inference_mode()
    def _generated(self, order: Order, library_size: float | None) -> Iterator[Chunk]:
        lenders, sizes = (None, None) if order.lends else self._lenders(order)
        for pattern, tensors, positions in self._chunks(order):
            if lenders is None:
                lender, log_size = pattern, self._log_sizes(tensors)
            else:
                assert sizes is not None
                batch = tensors[REGISTRY_KEYS.BATCH_KEY].ravel().cpu().numpy()
                near = lenders.near(positions, batch)
                lender = lenders.cells[near]
                log_size = torch.as_tensor(sizes[near], device=self.device)
            tensors = tensors | self._labels_of(lender)
            z = self._decoder_reads(positions)
            counts, size = self._counts_at(z, tensors, log_size, library_size)
            yield Chunk(counts, positions.astype(np.float32), pattern, lender, size)

    def _lenders(self, order: Order) -> tuple[Lenders, np.ndarray]:
        """Return measured cells that may lend their sizes, and the logs of these, ``(n, 1)``."""
        batch = self.adata_manager.get_from_registry(REGISTRY_KEYS.BATCH_KEY).ravel()
        cells = some_of(np.arange(self.adata.n_obs), batch, order.rng)
        means, sizes = [], []
        for tensors in self._make_data_loader(self.adata, cells, batch_size=CELLS_AT_ONCE):
            means.append(self._inferred(tensors)["qz"].mean.cpu().numpy())
            sizes.append(self._log_sizes(tensors).cpu().numpy())
        return Lenders(cells, np.concatenate(means), batch[cells], order.rng), np.concatenate(sizes)

    def _log_sizes(self, tensors: dict[str, Any]) -> Tensor:
        """Return the log sizes that cells are decoded with, ``(n_cells, 1)``."""
        if self._reads_factors:
            factor: Tensor = tensors[REGISTRY_KEYS.SIZE_FACTOR_KEY].to(self.device).float()
            return factor.log()
        inferred = self._inferred(tensors)
        library: Tensor = inferred["library"] if inferred["ql"] is None else inferred["ql"].loc
        return library

    def _labels_of(self, cells: np.ndarray) -> dict[str, Tensor]:
        codes = np.asarray(self.adata_manager.get_from_registry(REGISTRY_KEYS.LABELS_KEY))
        return {REGISTRY_KEYS.LABELS_KEY: torch.as_tensor(codes[cells].reshape(-1, 1)).long()}

    def _counts_at(
        self, z: Tensor, tensors: dict[str, Any], log_size: Tensor, library_size: float | None
    ) -> tuple[sparse.csr_matrix, np.ndarray]:
        """Draw counts of cells whose expected totals are their sizes; return the sizes decoded."""
        wanted = log_size if library_size is None else torch.full_like(log_size, library_size).log()
        reads_size = self.module.likelihoods[COUNTS].reads_size
        if reads_size and (library_size is not None or not self._reads_factors):
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
        said = {"source": order.source if order.latent is None else "latent", "seed": order.seed}
        empty = AnnData(
            sparse.csr_matrix((0, adata.n_vars), dtype=np.float32),
            var=pd.DataFrame(index=adata.var_names),
            uns={"betavi": {"generated": {k: v for k, v in said.items() if v is not None}}},
        )
        if layer is not None:
            empty.layers[layer] = empty.X.copy()
        return empty

    def _obs(self, adata: AnnData, order: Order, chunk: Chunk) -> pd.DataFrame:
        args = self.registry_["setup_args"]
        obs = pd.DataFrame({"nearest_cell": adata.obs_names[chunk.lender].to_numpy()})
        for column in registered_columns(args):
            rows = chunk.lender if column == args["labels_key"] else chunk.pattern
            obs[column] = adata.obs[column].iloc[rows].to_numpy()
        if args["size_factor_key"] is not None:
            obs[args["size_factor_key"]] = chunk.size
        if order.batch is not None and args["batch_key"] is not None:
            obs[args["batch_key"]] = order.batch
        return obs
