"""Cells with every assay that no one has measured."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from scipy import sparse
from scvi.utils import track

from betavi._mudata import assembled
from betavi._tables import lookup
from betavi.model.draws import DrawsMixin, registered_columns
from betavi.model.joint_expression import JointExpressionMixin
from betavi.model.positions import CELLS_AT_ONCE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mudata import MuData

    from betavi.model.draws import Order


class JointGenerateMixin(DrawsMixin, JointExpressionMixin):
    """Paired cells."""

    def generate(
        self,
        n_cells: int | None = None,
        batch: str | int | None = None,
        source: str = "prior",
        cells: Any = None,
        latent: np.ndarray | None = None,
        library_size: Mapping[str, float] | None = None,
        seed: int | None = None,
        show_progress: bool = True,
    ) -> MuData:
        """Draw cells that have every assay: positions, sizes given those, and counts.

        Batches and further covariates are those of measured cells drawn at random.

        Parameters
        ----------
        n_cells
            How many; as many as positions if None.
        batch
            Only this one, with the further covariates of its cells.
        source
            ``"prior"``, ``"aggregate"``, from a density fitted to where cells are, or ``"cells"``, from
            the posteriors of measured cells: see :meth:`betavi.BetaVI.generate`.
        cells
            Around these only, with ``source="cells"``: names, positions or a mask.
        latent
            At these positions instead, ``(n, n_latent)``, each in its turn.
        library_size
            By modality, the expected total of every cell, of ``"bernoulli"`` the depth it is seen at; of
            others drawn given the position.
        seed
            Of the draws; ``scvi.settings.seed`` if None. The generator of torch is left as it was.
        show_progress
            Show a bar.

        Returns
        -------
        Counts of every modality, of which ``obsm["z"]`` has the positions, ``(n_cells, n_latent)``,
        and ``obs`` the columns that the model was set up with, so that it can read the cells.

        Raises
        ------
        ValueError
            If there are to be no cells, a word, a batch, a position or a size means nothing, or the
            object has no cells of the batch.
        KeyError, IndexError
            If a cell does not exist.

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
        sizes = dict(library_size or {})
        for name, size in sizes.items():
            lookup(dict.fromkeys(self.modalities, True), name, "The modality of a library_size")
            self._check_size_of(name, size)
        self._validate_anndata()
        order = self._order(n_cells, batch, source, cells, latent, seed)
        bar = track(
            self._chunks(order),
            description="Generating",
            total=-(-len(order.pattern) // CELLS_AT_ONCE),
            disable=not show_progress,
        )
        with self._drawing(order.seed), torch.inference_mode():
            parts = [self._counts_of_all(tensors, where, sizes) for _, tensors, where in bar]
        return self._as_mudata(parts, order)

    def _counts_of_all(
        self, tensors: dict[str, Any], positions: np.ndarray, sizes: dict[str, float]
    ) -> dict[str, Any]:
        """Return counts by modality of a new cell at each position, and z."""
        z = self._decoder_reads(positions)
        drawn: dict[str, Any] = {"z": positions.astype(np.float32)}
        for name in self.modalities:
            size = self._typical(name).given(z, self._measured(tensors, name)).sample()
            if name in sizes:
                wanted = torch.full_like(size, sizes[name]).log()
                size = self._sized(name, z, tensors, size, wanted)
            px = self._px(z, tensors, name, size)
            drawn[name] = sparse.csr_matrix(self._drawn_from(name, px).cpu().numpy())
        return drawn

    def _as_mudata(self, parts: list[dict[str, Any]], order: Order) -> MuData:
        """Put new cells together, with the covariates of those whose pattern they have."""
        names = [f"generated_{number}" for number in range(len(order.pattern))]
        assays = {
            name: AnnData(
                sparse.vstack([part[name] for part in parts], format="csr"),
                obs=pd.DataFrame(index=names),
                var=pd.DataFrame(index=self._features(name)),
            )
            for name in self.modalities
        }
        found = assembled(assays)
        args = self.registry_["setup_args"]
        for column in registered_columns(args):
            found.obs[column] = self.adata.obs[column].iloc[order.pattern].to_numpy()
        if order.batch is not None and args["batch_key"] is not None:
            found.obs[args["batch_key"]] = order.batch
        found.obsm["z"] = np.concatenate([part["z"] for part in parts])
        return found
