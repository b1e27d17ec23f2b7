"""Cells with every assay that no one has measured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from scipy import sparse
from scvi.utils import track

from betavi._mudata import assembled
from betavi._tables import lookup
from betavi.model.core.density import CELLS_AT_ONCE
from betavi.model.generation.sources import DrawsMixin, no_cells
from betavi.model.io.writer import CellChunk, collect, new_file

if TYPE_CHECKING:
    from pathlib import Path

    from mudata import MuData
    from torch import Tensor

    from betavi.model.generation.sources import Order


class JointGenerateMixin(DrawsMixin):
    """Paired cells."""

    def generate(
        self,
        n_cells: int | None = None,
        batch: str | int | None = None,
        source: str = "prior",
        cells: Any = None,
        latent: np.ndarray | None = None,
        library_size: Mapping[str, float | np.ndarray] | None = None,
        seed: int | None = None,
        out: str | Path | None = None,
        show_progress: bool = True,
    ) -> MuData | None:
        """Draw cells that have every assay: positions, sizes given those, and counts.

        Parameters
        ----------
        n_cells
            How many; as many as there are ``cells`` or positions if None.
        batch
            As if of this one, see :meth:`betavi.BetaVI.generate`; if None, a cell has the batch and the
            further covariates of a measured one that is near.
        source
            ``"prior"``, ``"aggregate"``, from a density fitted to where cells are, or ``"cells"``, from
            the posteriors of measured cells; their sizes are drawn given the position, too.
        cells
            Around these only, with ``source="cells"``: names, positions or a mask.
        latent
            At these positions instead, ``(n, n_latent)``, each in its turn.
        library_size
            By modality, the expected total of every cell, or of each, ``(n_cells,)``; of
            ``"bernoulli"`` the depth it is seen at; of others drawn given the position.
        seed
            Of the draws; ``scvi.settings.seed`` if None. The generator of torch is left as it was.
        out
            Write a file instead, chunk by chunk: ``"x.h5mu"`` or ``"x.zarr"``.
        show_progress
            Show a bar.

        Returns
        -------
        Counts of every modality, of which ``obsm["z"]`` has the positions, ``(n_cells, n_latent)``,
        and ``obs`` the columns that the model was set up with, so that it can read the cells:
        covariates and label of ``near_cell``, one of fifteen measured cells that are nearest, or that
        around which it was drawn. None if a file was written.

        Raises
        ------
        ValueError
            If there are to be no cells, a word, a batch, a position or a size means nothing, or the
            object has no cells of the batch.
        KeyError, IndexError
            If a cell does not exist.
        FileExistsError
            If there is a file of that name.

        Examples
        --------
        >>> import betavi
        >>> mdata = betavi.datasets.simulate_multiome(n_cells=100)
        >>> betavi.JointVI.setup_mudata(mdata, {"rna": "zinb", "adt": "nb_mixture"})
        >>> model = betavi.JointVI(mdata, n_latent=5)
        >>> model.train(max_epochs=1, enable_progress_bar=False)
        >>> new = model.generate(50, seed=0, show_progress=False)
        >>> sorted(new.mod), new.n_obs
        (['adt', 'rna'], 50)
        """
        self._check_if_trained(warn=False)
        sizes = self._wanted_totals(library_size)
        self._validate_anndata()
        order = self._order(n_cells, batch, source, cells, latent, seed, sizes)
        empty = self._frame(order)
        writer = None if out is None else new_file(empty, out)
        bar = track(
            self._drafts(order, self._density_of(order, show_progress)),
            description="Generating",
            total=-(-order.n_cells // CELLS_AT_ONCE),
            disable=not show_progress,
        )
        chunks = (
            CellChunk(
                self._counts_of_all(tensors, positions, totals),
                self._obs(order, near),
                positions.astype(np.float32),
            )
            for near, tensors, positions, totals in bar
        )
        with self._drawing(order.seed), torch.inference_mode():
            return collect(empty, chunks, writer)

    def _wanted_totals(self, library_size: Any) -> dict[str, Any]:
        if not isinstance(library_size, Mapping | None):
            raise ValueError(
                f"library_size is by modality, {{{self.modalities[0]!r}: {library_size!r}}}."
            )
        sizes = dict(library_size or {})
        for name, size in sizes.items():
            lookup(dict.fromkeys(self.modalities, True), name, "The modality of a library_size")
            self._check_size_of(name, size)
        return sizes

    def _counts_of_all(
        self, tensors: dict[str, Any], positions: np.ndarray, totals: dict[str, Tensor]
    ) -> dict[str, Any]:
        """Return counts by modality of a new cell at each position."""
        z = self._decoder_reads(positions)
        drawn: dict[str, Any] = {}
        for name in self.modalities:
            size = self._typical(name).given(z, self._measured(tensors, name)).sample()
            if self.module.likelihoods[name].reads_size:
                # sizes are those of measured totals, which a zero-inflated likelihood is to have, too
                wanted = totals[name].to(size).log() if name in totals else size
                size = self._sized(name, z, tensors, size, wanted)
            px = self._px(z, tensors, name, size)
            drawn[name] = sparse.csr_matrix(self._drawn_from(name, px).cpu().numpy())
        return drawn

    def _frame(self, order: Order) -> MuData:
        """Return an object without cells, that knows the features and what is generated."""
        layers = self.registry_["setup_args"]["layers"] or {}
        parts = {name: no_cells(self._features(name), layers.get(name)) for name in self.modalities}
        empty = assembled(parts)
        empty.uns["betavi"] = {"generated": order.said}
        return empty

    def _obs(self, order: Order, near: np.ndarray) -> pd.DataFrame:
        obs = pd.DataFrame({"near_cell": self.adata.obs_names[near].to_numpy()})
        return obs.join(self._registered(order, near))
