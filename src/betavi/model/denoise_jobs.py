"""Denoising carried out: into an object, or into a file a minibatch at a time."""

from __future__ import annotations

import shutil
from functools import partial
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import anndata
import numpy as np
import torch
from mudata import MuData
from scipy import sparse
from scvi import settings

from betavi._mudata import assembled
from betavi._tables import lookup
from betavi.model.denoise_engine import Asked, DenoiseEngine
from betavi.model.files import PlannedMatrix
from betavi.model.fingerprint import fingerprint
from betavi.model.kept import Kept, Moments, gathered
from betavi.model.messages import inform
from betavi.model.store import COUNTS_LAYER, Place, layers_as_before, positions_of
from betavi.model.stream import Form, Stream
from betavi.train import Rows, counts_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from anndata import AnnData
    from scvi._types import AnnOrMuData


class Wanted(NamedTuple):
    """What a user says of what is to be denoised, and how, in the words of ``denoise``."""

    layer: str | None
    std_layer: str | None
    estimate: str
    genes: Sequence[str] | None
    transform_batch: str | Sequence[str] | None
    library_size: float | str
    n_samples: int
    dtype: str
    drop_below: float | None


class Run(NamedTuple):
    """How it is carried out."""

    batch_size: int
    show_progress: bool
    out: Path | None


class Job(NamedTuple):
    """A modality to denoise: which of the object's cells have it, and where its values go."""

    name: str
    cells: np.ndarray
    ask: Asked
    kept: Kept
    place: Place
    batches: list[str]
    """Names of those that are decoded, of each cell's own if empty."""

    @property
    def part(self) -> str:
        """The group of a file that it is in."""
        return "" if self.place.modality is None else f"mod/{self.place.modality}/"

    @property
    def shape(self) -> tuple[int, int]:
        """Number of cells and of features to write."""
        features = self.ask.features
        return len(self.cells), self.place.adata.n_vars if features is None else len(features)

    def named(self, values: Moments) -> dict[str, Any]:
        """Return values by their keys in a file."""
        named = {self.place.key(self.part, self.place.layer): values.mean}
        if self.place.std_layer is not None:
            named[self.place.key(self.part, self.place.std_layer)] = values.std
        return named

    def skeleton(self) -> AnnData:
        """Return what a file says of the cells and the features, without a matrix."""
        adata, features = self.place.adata, self.ask.features
        obs = adata.obs.loc[:, [name for name in adata.obs if not str(name).startswith("_scvi")]]
        var = adata.var if features is None else adata.var.iloc[features]
        return anndata.AnnData(obs=obs.copy(), var=var.copy(), uns={"betavi": {}})

    def record(self) -> dict[str, Any]:
        """Return what ``uns`` says of the values: what they are, and how much was dropped."""
        ask = self.ask
        said = {
            "estimate": ask.estimate,
            "library_size": ask.size,
            "batches": self.batches or "own",
            "n_samples": ask.n_samples,
        }
        if self.kept.drop_below is not None:
            said |= {"drop_below": self.kept.drop_below, "dropped_share": self.kept.dropped_share}
        return {"denoised": {self.place.layer or "X": said}}


class DenoiseJobs(DenoiseEngine):
    """Carries out what ``denoise`` of either model was asked for."""

    def _job(self, name: str, cells: np.ndarray, place: Place, wanted: Wanted) -> Job:
        called = "adata" if place.modality is None else f"mdata[{place.modality!r}]"
        features = (
            None
            if wanted.genes is None
            else positions_of(place.adata.var_names, wanted.genes, called)
        )
        ask = self._asked(
            name,
            features,
            wanted.estimate,
            wanted.transform_batch,
            wanted.library_size,
            wanted.n_samples,
        )
        named = (
            [wanted.transform_batch]
            if isinstance(wanted.transform_batch, str)
            else wanted.transform_batch
        )
        kept = Kept(wanted.dtype, wanted.drop_below)
        return Job(name, cells, ask, kept, place, list(map(str, named or [])))

    def _carry_out(self, adata: AnnOrMuData, jobs: Sequence[Job], run: Run) -> None:
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
            self._into_file(adata, jobs, run, run.out, seed, _form(run.out, adata, jobs))
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
        said = [(job.name, job.ask, job.kept.dtype, job.kept.drop_below) for job in jobs]
        features = [tuple(job.place.adata.var_names) for job in jobs]
        plan = {key: matrix for job in jobs for key, matrix in _plan(job, run).items()}
        asked = fingerprint(self.module, manager, said, features, plan, self.module.dial.beta)
        stream = Stream(out, asked, seed, plan, form)
        for job in jobs:
            self._stream(adata, job, run, stream)
        stream.finish({job.part: job.record() | _moved(job) for job in jobs})

    def _stream(self, adata: AnnOrMuData, job: Job, run: Run, stream: Stream) -> None:
        start = stream.n_rows(job.part)
        if start:
            inform(f"{start} of {job.shape[0]} cells of {job.name} are in {stream.folder} already.")
        job.kept.remember(stream.notes(job.part))
        counts = Rows(counts_of(job.place.adata, job.place.counts_layer))
        for values in self._parts(adata, job, run, start, stream.seed):
            rows = job.named(values)
            stop = start + values.mean.shape[0]
            if job.place.layer is None:
                some = sparse.csr_matrix(counts[np.arange(start, stop)])
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
        own = Path(backed.filename)
        backed.file["obs"].file.flush()
        form = Form(partial(shutil.copyfile, own), is_folder=False, is_checked=False)
        self._into_file(adata, jobs, run, own, seed, form)
        job.place.reopen(job.record())


def run_of(batch_size: int | None, show_progress: bool, out: str | Path | None) -> Run:
    """Return how to carry it out."""
    path = None if out is None else Path(out)
    return Run(batch_size or settings.batch_size, show_progress, path)


def _plan(job: Job, run: Run) -> dict[str, PlannedMatrix]:
    names = job.named(Moments(None, None))
    planned = PlannedMatrix(job.part, job.shape, job.kept.dtype, job.kept.is_sparse, run.batch_size)
    plan = dict.fromkeys(names, planned)
    if run.out is not None and job.place.layer is None:
        counts = Rows(counts_of(job.place.adata, job.place.counts_layer)).dtype.name
        key = job.place.key(job.part, COUNTS_LAYER)
        plan[key] = planned._replace(dtype=counts, is_sparse=True)
    return plan


def _form(out: Path, adata: AnnOrMuData, jobs: Sequence[Job]) -> Form:
    """Return what the file is that a path names.

    Raises
    ------
    ValueError
        If its name does not say, or it is the one that the object is read from.
    FileNotFoundError
        If the folder that it is to be in does not exist.
    """
    if isinstance(adata, MuData):
        skeleton = assembled({job.name: job.skeleton() for job in jobs})
        forms = {".zarr": Form(skeleton.write_zarr, True), ".h5mu": Form(skeleton.write, False)}
    else:
        alone = jobs[0].skeleton()
        forms = {".zarr": Form(alone.write_zarr, True), ".h5ad": Form(alone.write_h5ad, False)}
    form = lookup(forms, out.suffix, "the ending of out")
    if not out.parent.is_dir():
        raise FileNotFoundError(f"There is no folder {out.parent} for out={str(out)!r}.")
    for job in jobs:
        own = job.place.adata.filename if job.place.adata.isbacked else None
        if own is not None and out.exists() and out.samefile(own):
            raise ValueError(f"{out} is the file that the object is read from. Leave out= out.")
    return form


def _moved(job: Job) -> dict[str, Any]:
    return {} if job.place.layer is not None else {"counts_moved_to": COUNTS_LAYER}
