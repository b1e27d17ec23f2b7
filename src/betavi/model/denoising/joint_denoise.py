"""Every assay of a cell without its noise, by all that the cell has."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from betavi.data import counts_layer
from betavi.model.core._transition import refuse_minified
from betavi.model.core.library_size import aligned
from betavi.model.denoising.job import Job, Wanted, genes_of, run_of
from betavi.model.denoising.run import DenoiseJobs
from betavi.model.io.destination import Place
from betavi.model.setup.transaction import untouched_on_failure

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from mudata import MuData


class JointDenoiseMixin(DenoiseJobs):
    """``denoise`` of several modalities."""

    @torch.inference_mode()
    def denoise(
        self,
        mdata: MuData | None = None,
        modalities: Sequence[str] | str | None = None,
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
        """Write expected counts, without the noise of counting, into modalities of an object.

        Positions are inferred from everything that a cell has. Only cells that have a modality are
        denoised in it: for the others there is :meth:`translate`.

        Parameters
        ----------
        mdata
            The object; the model's own if None.
        modalities
            Which to denoise; all if None. Of proteins the background is part of what is expected,
            and of ``"bernoulli"`` the values are probabilities.
        layer_added
            The layer to write in each of them; if None, ``X`` is replaced, and counts that were
            there are kept in ``layers["counts"]``, where models find them from then on.
        std_layer_added, estimate, transform_batch, n_samples, batch_size
            See :meth:`betavi.BetaVI.denoise`.
        dtype, drop_below, show_progress
            Likewise.
        gene_list
            Only these features of a single modality, as a data frame in its ``obsm``.
        library_size
            ``"observed"``, each cell's own size, or a number.
        out
            Write a file instead, ``"x.zarr"`` or ``"x.h5mu"``, with all modalities asked for; see
            :meth:`betavi.BetaVI.denoise`.

        Raises
        ------
        KeyError
            If a feature is unknown.
        ValueError
            If a word or a number means nothing, a modality or a batch is unknown, ``gene_list`` is
            not of one modality, or the object is minified. The object is as it was.

        Examples
        --------
        >>> import betavi
        >>> mdata = betavi.datasets.simulate_multiome(n_cells=100, missing={"adt": 0.5})
        >>> betavi.JointVI.setup_mudata(mdata, {"rna": "zinb", "adt": "nb_mixture"})
        >>> model = betavi.JointVI(mdata, n_latent=5)
        >>> model.train(max_epochs=1, enable_progress_bar=False)
        >>> model.denoise(show_progress=False)
        >>> mdata["adt"].layers["denoised"].shape == mdata["adt"].shape
        True
        """
        self._check_if_trained(warn=False)
        refuse_minified(self)
        run = run_of(batch_size, show_progress, out)
        wanted = Wanted(
            layer_added, std_layer_added, estimate, genes_of(gene_list), transform_batch, library_size,
            n_samples, dtype, drop_below,
        )  # fmt: skip
        # what reading an object writes into it, too
        with untouched_on_failure(self.adata if mdata is None else mdata):
            names, mdata = self._chosen(modalities), self._validate_anndata(mdata)
            if gene_list is not None and len(names) > 1:
                raise ValueError("gene_list is of one modality: name it, modalities=.")
            jobs = [self._job_of(mdata, name, wanted) for name in names]
            for job in jobs:
                job.place.check(to_file=out is not None)
            self._carry_out(mdata, jobs, run)

    def _job_of(self, mdata: MuData, name: str, wanted: Wanted) -> Job:
        """Return what is to be done of a modality: of the cells that have it, in its own order."""
        manager = self.get_anndata_manager(mdata, required=True)
        cells = aligned(manager, name).cells
        layers = manager.registry["setup_args"]["layers"] or {}
        counts = counts_layer(mdata[name], layers.get(name))
        place = Place(mdata[name], counts, wanted.layer, wanted.std_layer, wanted.genes, name)
        return self._job(name, cells, place, wanted)
