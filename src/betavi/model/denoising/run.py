"""Denoising carried out: into an object, or into a file a minibatch at a time."""

from __future__ import annotations

from functools import partial
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy import sparse

from betavi.data import Rows, counts_of
from betavi.model.denoising.estimate import DenoiseEngine
from betavi.model.denoising.job import Job, Run, Wanted, form_of, plan_of
from betavi.model.io.destination import COUNTS_LAYER, Place, layers_as_before
from betavi.model.io.files import copy_file
from betavi.model.io.fingerprint import fingerprint
from betavi.model.io.storage_format import Kept, Moments, gathered
from betavi.model.io.stream import Form, Stream
from betavi.model.setup.messages import inform
from betavi.model.setup.selection import features_named

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from scvi._types import AnnOrMuData


class DenoiseJobs(DenoiseEngine):
    """Carries out what ``denoise`` of either model was asked for."""

    def _job(self, name: str, cells: np.ndarray, place: Place, wanted: Wanted) -> Job:
        features = None
        if wanted.genes is not None:
            called = "adata" if place.modality is None else f"mdata[{place.modality!r}]"
            features = features_named(place.adata.var_names, wanted.genes, called)
        ask = self._asked(name, features, wanted)
        return Job(name, cells, ask, Kept(wanted.dtype, wanted.drop_below), place, wanted)

    def _carry_out(self, adata: AnnOrMuData, jobs: Sequence[Job], run: Run) -> None:
        form = None if run.out is None else form_of(run.out, adata, jobs)
        self._tell_batches(adata, jobs[0].ask.batches)
        seed = int(torch.randint(2**31, ()))
        in_file = [job.place.adata.isbacked and job.place.genes is None for job in jobs]
        if run.out is None and any(in_file):
            self._into_own_file(adata, jobs, run, seed)
        elif run.out is None:
            # all of them before the first is written
            found = [
                gathered(
                    self._parts(adata, job, run, 0, seed),
                    job.shape,
                    job.kept,
                    job.place.std_layer is not None,
                )
                for job in jobs
            ]
            with layers_as_before([job.place.adata for job in jobs]):
                for job, values in zip(jobs, found, strict=True):
                    job.place.put(values, job.record())
        else:
            assert form is not None
            self._into_file(adata, jobs, run, run.out.resolve(), seed, form)
        for job in jobs:
            if job.kept.is_sparse:
                inform(
                    f"Values of {job.name} below {job.kept.drop_below:g} were dropped: "
                    f"{job.kept.dropped_share:.2%} of the sum of all."
                )

    def _parts(
        self, adata: AnnOrMuData, job: Job, run: Run, start: int, seed: int
    ) -> Iterator[Moments]:
        """Yield what is kept of the values of the cells from one on, minibatch by minibatch."""
        cells = job.cells[start:]
        if not len(cells):
            return
        loader = self._make_data_loader(adata, cells, run.batch_size)
        seeds = count(seed + start // run.batch_size)
        for mean, std in self._moments(job.name, loader, job.ask, seeds, run.show_progress):
            yield job.kept.of(mean, std)

    def _into_file(
        self,
        adata: AnnOrMuData,
        jobs: Sequence[Job],
        run: Run,
        out: Path,
        seed: int,
        form: Form,
    ) -> None:
        manager = self.get_anndata_manager(adata, required=True)
        features = [tuple(job.place.adata.var_names) for job in jobs]
        # the genes as a tuple: the words for a long array are those for many others
        said = [
            (
                job.name,
                job.ask._replace(features=None),
                job.place.genes,
                job.kept.dtype,
                job.kept.drop_below,
            )
            for job in jobs
        ]
        plan = {key: matrix for job in jobs for key, matrix in plan_of(job, run).items()}
        asked = fingerprint(self.module, manager, said, features, plan, self.module.dial.beta)
        stream = Stream(out, asked, seed, plan, form)
        try:
            for job in jobs:
                self._stream(adata, job, run, stream)
            stream.finish({job.part: job.record_of_file() for job in jobs})
        except (OSError, KeyboardInterrupt) as error:
            error.add_note(
                f"What is done is kept in {stream.folder}: the same call goes on with it."
            )
            raise

    def _stream(self, adata: AnnOrMuData, job: Job, run: Run, stream: Stream) -> None:
        start = stream.n_rows(job.part)
        if start:
            inform(f"{start} of {job.shape[0]} cells of {job.name} are in {stream.folder} already.")
        job.kept.remember(stream.notes(job.part))
        counts = None
        if job.place.layer is None:
            counts = Rows(counts_of(job.place.adata, job.place.counts_layer))
        for values in self._parts(adata, job, run, start, stream.seed):
            rows = job.named(values)
            stop = start + values.mean.shape[0]
            if counts is not None:
                some = counts[np.arange(start, stop)]
                # of which scipy knows no sparse matrix
                some = some.astype(np.float32) if some.dtype == np.float16 else some
                some = sparse.csr_matrix(some)
                features = job.ask.features
                rows[job.place.key(job.part, COUNTS_LAYER)] = (
                    some if features is None else some[:, features]
                )
            stream.add(job.part, rows, job.kept.notes())
            start = stop

    def _into_own_file(self, adata: AnnOrMuData, jobs: Sequence[Job], run: Run, seed: int) -> None:
        """Write into the file that backs an object: into a copy of it, which takes its place."""
        (job,) = jobs
        backed = job.place.adata
        own = Path(backed.filename).resolve()
        before = own.stat().st_ino
        replaced = set(plan_of(job, run))
        form = Form(partial(copy_file, backed.file["obs"].file, replaced), False, is_checked=False)
        try:
            self._into_file(adata, jobs, run, own, seed, form)
        finally:
            # whatever came after that: what the object would go on to read is no file any more
            if own.stat().st_ino != before:
                job.place.reopen(job.record())
