"""What is to be denoised, how, and where it goes."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import anndata
from mudata import MuData
from scvi import settings

from betavi._mudata import assembled
from betavi._tables import check_whole, lookup
from betavi.data import MOVED_COUNTS, Rows, counts_of
from betavi.model.io.destination import COUNTS_LAYER, Place
from betavi.model.io.files import PlannedMatrix
from betavi.model.io.storage_format import Kept, Moments
from betavi.model.io.stream import Form

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import numpy as np
    import pandas as pd
    from anndata import AnnData
    from scvi._types import AnnOrMuData

    from betavi.model.denoising.estimate import Asked


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


def genes_of(gene_list: Iterable[str] | None) -> tuple[str, ...] | None:
    """Return the names that a user gave, in any kind of list.

    Raises
    ------
    TypeError
        If it is a single name.
    ValueError
        If there is none, or one twice.
    """
    if gene_list is None:
        return None
    if isinstance(gene_list, str):
        raise TypeError(f"gene_list is a list of names: [{gene_list!r}].")
    genes = tuple(gene_list)
    if not genes:
        raise ValueError("gene_list is empty: leave it out to denoise all genes.")
    gene, times = Counter(genes).most_common(1)[0]
    if times > 1:
        raise ValueError(f"gene_list names {gene!r} {times} times.")
    return genes


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
    wanted: Wanted

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
        var = adata.var if features is None else adata.var.iloc[features]
        return anndata.AnnData(obs=_obs_of_user(adata.obs), var=var.copy(), uns={"betavi": {}})

    def record(self) -> dict[str, Any]:
        """Return what ``uns`` says of the values: what they are, and how much was dropped."""
        ask, batches = self.ask, self.wanted.transform_batch
        names = [batches] if isinstance(batches, str) else batches
        said = {
            "estimate": ask.estimate,
            "library_size": ask.size,
            "batches": "own" if names is None else list(map(str, names)),
            "n_samples": ask.n_samples,
            "beta": ask.beta,
        }
        if self.kept.drop_below is not None:
            said |= {"drop_below": self.kept.drop_below, "dropped_share": self.kept.dropped_share}
        return {"denoised": {self.place.layer or "X": said}}

    def record_of_file(self) -> dict[str, Any]:
        """Return what ``uns`` of a file says, also where the counts are that are not in ``X``."""
        moved = {} if self.place.layer is not None else {MOVED_COUNTS: COUNTS_LAYER}
        return self.record() | moved


def run_of(batch_size: int | None, show_progress: bool, out: str | Path | None) -> Run:
    """Return how to carry it out.

    Raises
    ------
    ValueError
        If the number of cells at once is none.
    """
    if batch_size is not None:
        check_whole("batch_size", batch_size)
    path = None if out is None else Path(out).expanduser()
    return Run(batch_size or settings.batch_size, show_progress, path)


def plan_of(job: Job, run: Run) -> dict[str, PlannedMatrix]:
    """Return the matrices that a file is to have of a modality, by their keys."""
    names = job.named(Moments(None, None))
    planned = PlannedMatrix(job.part, job.shape, job.kept.dtype, job.kept.is_sparse, run.batch_size)
    plan = dict.fromkeys(names, planned)
    if run.out is not None and job.place.layer is None:
        counts = Rows(counts_of(job.place.adata, job.place.counts_layer)).dtype.name
        counts = "float32" if counts == "float16" else counts
        key = job.place.key(job.part, COUNTS_LAYER)
        plan[key] = planned._replace(dtype=counts, is_sparse=True)
    return plan


def form_of(out: Path, adata: AnnOrMuData, jobs: Sequence[Job]) -> Form:
    """Return what the file is that a path names.

    Raises
    ------
    ValueError
        If its name does not say, or it is the one that the object is read from.
    FileNotFoundError
        If the folder that it is to be in does not exist.
    FileExistsError
        If there is something else of that name.
    """
    if isinstance(adata, MuData):
        skeleton = assembled({job.name: job.skeleton() for job in jobs})
        skeleton.obs = _obs_of_user(adata.obs.loc[skeleton.obs_names])
        forms = {".zarr": Form(skeleton.write_zarr, True), ".h5mu": Form(skeleton.write, False)}
        tables = {"obs": skeleton.obs}
    else:
        alone, tables = jobs[0].skeleton(), {}
        forms = {".zarr": Form(alone.write_zarr, True), ".h5ad": Form(alone.write_h5ad, False)}
    for job in jobs:
        part = job.skeleton()
        tables |= {f"{job.part}obs": part.obs, f"{job.part}var": part.var}
    form = lookup(forms, out.suffix, "the ending of out")
    _check_out(out, form, jobs)
    return form._replace(tables=tables)


def _check_out(out: Path, form: Form, jobs: Sequence[Job]) -> None:
    if not out.parent.is_dir():
        raise FileNotFoundError(f"There is no folder {out.parent} for out={str(out)!r}.")
    for job in jobs:
        own = job.place.adata.filename if job.place.adata.isbacked else None
        if own is not None and out.exists() and out.samefile(own):
            raise ValueError(f"{out} is the file that the object is read from. Leave out= out.")
    is_store = any((out / name).exists() for name in ("zarr.json", ".zgroup"))
    if out.exists() and (not is_store if form.is_folder else out.is_dir()):
        raise FileExistsError(f"{out} exists, and is something else. Rename it, or write another.")


def _obs_of_user(obs: pd.DataFrame) -> pd.DataFrame:
    """Return columns that are not scvi-tools' own."""
    return obs.loc[:, [name for name in obs if not str(name).startswith("_scvi")]].copy()
