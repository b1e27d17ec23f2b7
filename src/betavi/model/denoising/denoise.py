"""Counts without their noise, written into the object that has them, or into a file."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from betavi.data import COUNTS, counts_layer
from betavi.model.core._transition import refuse_minified
from betavi.model.denoising.job import Wanted, genes_of, run_of
from betavi.model.denoising.run import DenoiseJobs
from betavi.model.io.destination import Place, refuse_view_of_file
from betavi.model.setup.transaction import untouched_on_failure

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from anndata import AnnData


class DenoiseMixin(DenoiseJobs):
    """``denoise`` of one modality."""

    @torch.inference_mode()
    def denoise(
        self,
        adata: AnnData | None = None,
        layer_added: str | None = "denoised",
        std_layer_added: str | None = None,
        estimate: str = "posterior",
        gene_list: Sequence[str] | None = None,
        transform_batch: str | Sequence[str] | None = None,
        library_size: float | str = "observed",
        n_samples: int = 1,
        batch_size: int | None = None,
        out: str | Path | None = None,
        dtype: str = "float32",
        drop_below: float | None = None,
        show_progress: bool = True,
    ) -> None:
        """Write expected counts, without the noise of counting, into an object.

        Parameters
        ----------
        adata
            The object; the model's own if None. A view becomes an object of its own.
        layer_added
            The layer to write; if None, ``X`` is replaced, and counts that were there are kept in
            ``layers["counts"]``, where models find them from then on, also loaded ones.
        std_layer_added
            Write standard deviations too: of the posterior rate, and between draws of z.
        estimate
            ``"posterior"``, what a second measurement of the same cell would expect given z and
            what the first one found; or ``"mean"``, given z alone: what cells like it expect.
        gene_list
            Only these, as a data frame in ``obsm`` of the name of the layer.
        transform_batch
            Decode every cell as if it came from this batch, or the average over several. That is
            always the decoder's mean.
        library_size
            ``"observed"``, each cell's own size, ``"latent"``, the one inferred, or a number.
        n_samples
            Number of draws of z; 1 is the mean of z.
        batch_size
            Cells at once; scvi-tools' default if None.
        out
            Write a file instead, a minibatch at a time: ``"x.zarr"`` or ``"x.h5ad"``, with ``obs``,
            ``var`` and the values, and with the counts too if ``layer_added`` is None. Until it is
            complete, what is done is in a folder beside it, ``x.zarr.partial``, and the same call
            goes on with it. An object that is backed (``"r+"``) is written to its own file if None.
        dtype
            ``"float32"`` or ``"float16"``.
        drop_below
            Keep no values below this, and write a sparse matrix; the share of the sum that is
            dropped is logged and in ``uns["betavi"]["denoised"]``. Standard deviations are kept
            where means are. All values are kept if None.
        show_progress
            Show a bar.

        Raises
        ------
        KeyError
            If a gene is unknown.
        TypeError
            If ``gene_list`` is a single name.
        ValueError
            If a word or a number means nothing, the batch is unknown, the object is minified or a
            view of a file, a value is too large for ``dtype``, ``layers["counts"]`` is taken, or a layer
            that is named holds whole numbers, such as counts, that this did not write.
            The object is as it was.
        FileNotFoundError, FileExistsError
            If there is no such folder, or something else of that name.

        References
        ----------
        Huang et al. (2018), SAVER, for the posterior of a rate; Lopez et al. (2018), scVI.

        Examples
        --------
        >>> import betavi
        >>> adata = betavi.datasets.simulate_counts(n_cells=100, n_genes=20)
        >>> betavi.BetaVI.setup_anndata(adata)
        >>> model = betavi.BetaVI(adata, n_latent=5)
        >>> model.train(max_epochs=1, enable_progress_bar=False)
        >>> model.denoise(std_layer_added="denoised_std", show_progress=False)
        >>> adata.layers["denoised"].shape, bool((adata.layers["denoised_std"] > 0).all())
        ((100, 20), True)
        """
        self._check_if_trained(warn=False)
        refuse_minified(self)
        run = run_of(batch_size, show_progress, out)
        wanted = Wanted(
            layer_added, std_layer_added, estimate, genes_of(gene_list), transform_batch, library_size,
            n_samples, dtype, drop_below,
        )  # fmt: skip
        refuse_view_of_file(adata)
        # what reading an object writes into it, too
        with untouched_on_failure(self.adata if adata is None else adata):
            adata = self._validate_anndata(adata)
            args = self.get_anndata_manager(adata, required=True).registry["setup_args"]
            counts = counts_layer(adata, args["layer"])
            place = Place(adata, counts, layer_added, std_layer_added, wanted.genes)
            job = self._job(COUNTS, np.arange(adata.n_obs), place, wanted)
            place.check(to_file=out is not None)
            self._carry_out(adata, [job], run)
