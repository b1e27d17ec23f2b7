"""One writer for results that are larger than memory: the whole file, or the old one.

Abilities with ``out=`` use it like this::

    writer = new_file(template, out)                 # checks out; computes and writes nothing
    with writer:                                     # template is written beside the target
        writer.append("layers/denoised", rows)       # the next rows of a matrix, CSR or dense
        writer.append("mod/rna/X", rows)
        writer.write("obs", obs)                     # any other element, once
        writer.add_record("", {"denoised": {...}})   # merged into uns["betavi"]
                                                     # here the file takes its name

``template`` is an AnnData or MuData with everything that is not appended. The first ``append`` of a
key decides whether the matrix is sparse, its dtype, and the rows in one piece of a dense one. If
anything fails inside, what was written is removed. For what happens to the target if the process is
killed see :mod:`betavi.model.io.replace`.

:func:`changed_file` returns the same for the file that backs an object. :func:`collect` puts
generated cells together, in memory or with a writer.
"""

from __future__ import annotations

import warnings
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast

import h5py
import numpy as np
import pandas as pd
import zarr
from anndata import AnnData
from anndata.io import read_elem, sparse_dataset, write_elem
from mudata import MuData
from scipy import sparse

from betavi._mudata import assembled
from betavi._tables import lookup
from betavi.data import COUNTS
from betavi.model.io.replace import discard, reserve, take_place, tidy

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
    from types import TracebackType
    from typing import Self

Cells = TypeVar("Cells", AnnData, MuData)

ENDINGS: dict[type, tuple[str, ...]] = {AnnData: (".zarr", ".h5ad"), MuData: (".zarr", ".h5mu")}
"""Endings of files, by the kind of object."""

ENTRIES_AT_ONCE = 2**17
"""Entries of a sparse matrix in one piece of a file."""


class Writer:
    """Writes a file minibatch by minibatch; it has its name when it is complete.

    Made by :func:`new_file` and :func:`changed_file`. ``begin`` writes to a path everything that is
    not appended.
    """

    def __init__(self, target: Path, ending: str, begin: Callable[[Path], Any]) -> None:
        self.target, self.ending, self.begin = target, ending, begin
        self._keys: set[str] = set()

    def __enter__(self) -> Self:
        """Begin the file beside its target."""
        self._new = reserve(self.target, self.ending)
        try:
            with _without_news():
                self.begin(self._new)
            # what anndata consolidates it does not let anyone add to
            self.file: Any = (
                zarr.open_group(self._new, mode="r+", use_consolidated=False)
                if self.ending == ".zarr"
                else h5py.File(self._new, "r+")
            )
        except BaseException:
            discard(self._new)
            raise
        return self

    def append(self, key: str, rows: Any) -> None:
        """Append rows, ``(n_cells, n_features)``, CSR or dense, to the matrix of a key."""
        if key not in self._keys:
            self._begin_matrix(key, rows)
            self._keys.add(key)
        if sparse.issparse(rows):
            sparse_dataset(self.file[key]).append(rows)
            return
        data = self.file[key]
        start = data.shape[0]
        data.resize((start + rows.shape[0], rows.shape[1]))
        data[start:] = rows

    def write(self, key: str, element: Any, **kwargs: Any) -> None:
        """Write an element, in the place of one that is there."""
        # newer versions of anndata take no path
        holder, _, name = key.rpartition("/")
        group = self.file.require_group(holder) if holder else self.file
        with _without_news():
            write_elem(group, name, element, **kwargs)

    def add_record(self, prefix: str, record: dict[str, Any]) -> None:
        """Merge a record into ``uns["betavi"]`` of the object, or of the modality ``prefix``."""
        key = f"{prefix}uns/betavi"
        before = read_elem(self.file[key]) if key in self.file else {}
        self.write(key, merged(before, record))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Complete the file, or remove what there is of it."""
        try:
            if self.ending != ".zarr":
                self.file.close()
            elif kind is None:
                with _without_news():
                    zarr.consolidate_metadata(self.file.store)
            if kind is None:
                take_place(self._new, self.target)
        finally:
            discard(self._new)

    def _begin_matrix(self, key: str, rows: Any) -> None:
        n_rows, n_columns = rows.shape
        if sparse.issparse(rows):
            none = sparse.csr_matrix((0, n_columns), dtype=rows.dtype)
            # there may come more entries than 32 bits count
            none.indptr = none.indptr.astype(np.int64)
            # of an empty array zarr would make pieces of one entry, and a file of each
            self.write(key, none, dataset_kwargs={"chunks": (ENTRIES_AT_ONCE,)})
            return
        kwargs: dict[str, Any] = {"chunks": (max(1, n_rows), max(1, n_columns))}
        if self.ending != ".zarr":
            kwargs["maxshape"] = (None, n_columns)
        self.write(key, np.zeros((0, n_columns), dtype=rows.dtype), dataset_kwargs=kwargs)


def new_file(template: AnnData | MuData, out: str | Path, replaces: bool = False) -> Writer:
    """Return the writer of a new file, or with ``replaces`` of one that may exist.

    Raises
    ------
    ValueError
        If the ending of ``out`` is unknown.
    FileNotFoundError
        If the folder does not exist.
    FileExistsError
        If there is a file of that name, or something else that is not replaced.
    """
    path = Path(out).expanduser()
    endings = ENDINGS[MuData if isinstance(template, MuData) else AnnData]
    ending = lookup(dict(zip(endings, endings, strict=True)), path.suffix, "The ending of out")
    target = path.resolve()
    if not target.parent.is_dir():
        raise FileNotFoundError(f"There is no folder {target.parent} for out={str(out)!r}.")
    tidy(target)
    if target.exists() and not replaces:
        raise FileExistsError(f"{path} exists. Remove it, or write to another file.")
    is_store = any((target / name).exists() for name in ("zarr.json", ".zgroup"))
    if target.exists() and (not is_store if ending == ".zarr" else target.is_dir()):
        raise FileExistsError(f"{path} exists, and is something else. Rename it, or write another.")
    return Writer(target, ending, getattr(template, f"write_{ending[1:]}"))


def changed_file(adata: AnnData, without: Collection[str]) -> Writer:
    """Return the writer of the file that backs an object: of a copy, without some layers."""
    file = adata.file["obs"].file
    target = Path(adata.filename).resolve()
    tidy(target)
    return Writer(target, ".h5ad", partial(_copy_file, file, without))


class CellChunk(NamedTuple):
    """Some generated cells."""

    counts: Mapping[str, sparse.csr_matrix]
    """By modality, ``(n_cells, n_features)``; that of an AnnData is called ``"X"``."""
    obs: pd.DataFrame
    """Columns of the cells, whatever its index."""
    z: np.ndarray
    """Latent positions, ``(n_cells, n_latent)``."""


def collect(empty: Cells, chunks: Iterable[CellChunk], writer: Writer | None) -> Cells | None:
    """Put generated cells together, in memory or in a file.

    Parameters
    ----------
    empty
        An object without cells, with the features, ``uns``, and each matrix that is to have the
        counts: ``X`` and layers.
    chunks
        The cells. None is drawn before ``writer`` has written ``empty``.
    writer
        Of ``empty`` as the template; None for an object in memory.

    Returns
    -------
    The cells, named ``generated_0`` and so on, with ``obs`` and ``obsm["z"]``; None with a writer.
    """
    several = isinstance(empty, MuData)
    parts: dict[str, AnnData] = dict(empty.mod) if isinstance(empty, MuData) else {COUNTS: empty}
    keys = {name: _count_keys(f"mod/{name}/" * several, part) for name, part in parts.items()}
    obs, z = [], []
    counts: dict[str, list[sparse.csr_matrix]] = {name: [] for name in parts}
    with writer or nullcontext():
        for chunk in chunks:
            obs.append(chunk.obs)
            z.append(chunk.z)
            for name, rows in chunk.counts.items():
                if writer is None:
                    counts[name].append(rows)
                    continue
                for key in keys[name]:
                    writer.append(key, rows)
        cells = pd.concat(obs, ignore_index=True)
        cells.index = pd.Index([f"generated_{number}" for number in range(len(cells))])
        if writer is not None:
            _write_cells(writer, cells, np.concatenate(z), list(parts) if several else [])
            return None
    for name, part in parts.items():
        x = sparse.vstack(counts[name], format="csr")
        layers = {layer: x.copy() for layer in named_layers(part)}
        parts[name] = AnnData(x, obs=cells[[]].copy(), var=part.var, layers=layers)
    found = assembled(parts) if several else parts[COUNTS]
    found.obs, found.obsm["z"] = cells, np.concatenate(z)
    found.uns.update(empty.uns)
    return cast("Cells", found)


def named_layers(adata: AnnData) -> dict[str, Any]:
    """Return the layers by name; newer versions of anndata count X among them, without one."""
    return {name: values for name, values in adata.layers.items() if name is not None}


def matrix_key(prefix: str, layer: str | None) -> str:
    """Return where a layer of a modality is in a file; None is ``X``."""
    return f"{prefix}X" if layer is None else f"{prefix}layers/{layer}"


def merged(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Return both; of a dictionary in both what either has, the latter's where both have it."""
    both = {**one, **other}
    for key in one.keys() & other.keys():
        if isinstance(one[key], dict) and isinstance(other[key], dict):
            both[key] = {**one[key], **other[key]}
    return both


def _count_keys(prefix: str, empty: AnnData) -> list[str]:
    return [matrix_key(prefix, layer) for layer in (None, *named_layers(empty))]


def _write_cells(writer: Writer, obs: pd.DataFrame, z: np.ndarray, modalities: list[str]) -> None:
    writer.write("obs", obs)
    writer.write("obsm/z", z)
    for name in modalities:
        writer.write(f"mod/{name}/obs", obs[[]])
        # which cells have the modality, and where in it they are, from 1 on
        writer.write(f"obsm/{name}", np.ones((len(obs), 1), dtype=bool))
        writer.write(f"obsmap/{name}", np.arange(1, len(obs) + 1, dtype=np.uint32))


def _copy_file(source: h5py.File, left_out: Collection[str], target: Path) -> None:
    """Copy an open file but for some of its layers, whose room it would keep."""
    with h5py.File(target, "w") as new:
        new.attrs.update(source.attrs)
        for name in source:
            if name != "layers":
                source.copy(name, new)
        if "layers" in source:
            new.create_group("layers").attrs.update(source["layers"].attrs)
            for name in source["layers"]:
                if f"layers/{name}" not in left_out:
                    source.copy(f"layers/{name}", new["layers"])


@contextmanager
def _without_news() -> Iterator[None]:
    """Leave out what anndata and zarr say about formats to come."""
    with warnings.catch_warnings():
        for news in ("Writing zarr v2", "Consolidated metadata", "zarr v3 autosharding"):
            warnings.filterwarnings("ignore", message=news)
        yield
