"""Writer of results that are larger than memory. A failed call leaves the old file unchanged.

Abilities with ``out=`` use it like this::

    writer = new_file(template, out)                 # checks `out`, writes nothing
    with writer:                                     # writes the template beside the target
        writer.append("layers/denoised", rows)       # next rows of a matrix, CSR or dense
        writer.append("mod/rna/X", rows)
        writer.write("obs", obs)                     # any other element, once
        writer.add_record("", {"denoised": {...}})   # merged into uns["betavi"]
                                                     # at the end, the file takes its name

``template`` is an AnnData or MuData with all elements that are not appended. The first append of a
key sets the format of the matrix, its dtype, and for a dense matrix the rows per chunk. If the body
fails, the new file is removed. See :mod:`betavi.model.io.replace` for killed processes.
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

from betavi import _blocks
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
"""File endings by kind of object."""


class Writer:
    """Context manager that writes a file by minibatches. The complete file replaces its target.

    Made by :func:`new_file` and :func:`changed_file`. ``write_template`` takes a path, and writes
    all elements that are not appended.
    """

    def __init__(self, target: Path, ending: str, write_template: Callable[[Path], Any]) -> None:
        self.target, self.ending, self.write_template = target, ending, write_template
        self._keys: set[str] = set()

    def __enter__(self) -> Self:
        """Write the template beside the target."""
        self._new = reserve(self.target, self.ending)
        try:
            with _without_format_warnings():
                self.write_template(self._new)
            # elements cannot be added through the consolidated metadata that anndata writes
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
            self._create_matrix(key, rows)
            self._keys.add(key)
        if sparse.issparse(rows):
            sparse_dataset(self.file[key]).append(rows)
            return
        data = self.file[key]
        start = data.shape[0]
        data.resize((start + rows.shape[0], rows.shape[1]))
        data[start:] = rows

    def write(self, key: str, element: Any, **kwargs: Any) -> None:
        """Write an element, or replace it."""
        # newer versions of anndata accept no path as a name
        parent, _, name = key.rpartition("/")
        group = self.file.require_group(parent) if parent else self.file
        with _without_format_warnings():
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
        """Complete the file, or remove it if the body failed."""
        try:
            if self.ending != ".zarr":
                self.file.close()
            elif kind is None:
                with _without_format_warnings():
                    zarr.consolidate_metadata(self.file.store)
            if kind is None:
                take_place(self._new, self.target)
        finally:
            discard(self._new)

    def _create_matrix(self, key: str, rows: Any) -> None:
        n_rows, n_columns = rows.shape
        if sparse.issparse(rows):
            empty = sparse.csr_matrix((0, n_columns), dtype=rows.dtype)
            # the number of entries may exceed 32 bits
            empty.indptr = empty.indptr.astype(np.int64)
            # for an empty array, zarr would choose chunks of one entry, each in a file of its own
            self.write(key, empty, dataset_kwargs={"chunks": (_blocks.CHUNK_ENTRIES,)})
            return
        kwargs: dict[str, Any] = {"chunks": (max(1, n_rows), max(1, n_columns))}
        if self.ending != ".zarr":
            kwargs["maxshape"] = (None, n_columns)
        self.write(key, np.zeros((0, n_columns), dtype=rows.dtype), dataset_kwargs=kwargs)


def new_file(template: AnnData | MuData, out: str | Path, replaces: bool = False) -> Writer:
    """Return the writer of a new file. With ``replaces``, an old file of this format is replaced.

    Raises a ValueError if the ending is unknown, a FileNotFoundError if the folder does not exist,
    and a FileExistsError if the file exists and is not replaced.
    """
    path = Path(out).expanduser()
    endings = ENDINGS[MuData if isinstance(template, MuData) else AnnData]
    ending = lookup(dict(zip(endings, endings, strict=True)), path.suffix, "The ending of `out`")
    target = path.resolve()
    if not target.parent.is_dir():
        raise FileNotFoundError(f"The folder {target.parent} of `out` does not exist. Create it.")
    tidy(target)
    if target.exists() and not replaces:
        raise FileExistsError(f"`out` exists: {path}. Remove the file, or choose another name.")
    is_store = any((target / name).exists() for name in ("zarr.json", ".zgroup"))
    if target.exists() and (not is_store if ending == ".zarr" else target.is_dir()):
        raise FileExistsError(
            f"`out` exists, but its format is not {ending}: {path}. Rename the file first."
        )
    return Writer(target, ending, getattr(template, f"write_{ending[1:]}"))


def changed_file(adata: AnnData, without: Collection[str]) -> Writer:
    """Return a writer that replaces a backed object's file. The layers ``without`` are dropped."""
    file = adata.file["obs"].file
    target = Path(adata.filename).resolve()
    tidy(target)
    return Writer(target, ".h5ad", partial(_copy_file, file, without))


class CellChunk(NamedTuple):
    """Chunk of generated cells, with latent positions ``z``, ``(n_cells, n_latent)``.

    ``counts`` are by modality (``"X"`` for an AnnData); images are dense and flat. The index of ``obs`` is ignored.
    """

    counts: Mapping[str, Any]
    obs: pd.DataFrame
    z: np.ndarray


def collect(empty: Cells, chunks: Iterable[CellChunk], writer: Writer | None) -> Cells | None:
    """Collect generated cells, named ``generated_0`` and so on, in memory or in a file.

    ``empty`` is an object without cells. It has the features, ``uns``, and the matrices that
    receive the counts: ``X`` and layers. ``empty`` is also the template of ``writer``, and is
    written before the first chunk is generated. Returns cells with ``obs`` and ``obsm["z"]``. With
    a writer, returns None.
    """
    is_joint = isinstance(empty, MuData)
    parts: dict[str, AnnData] = dict(empty.mod) if isinstance(empty, MuData) else {COUNTS: empty}
    obs, z = [], []
    keys = {name: _count_keys(f"mod/{name}/" * is_joint, part) for name, part in parts.items()}
    counts: dict[str, list[Any]] = {name: [] for name in parts}
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
            _write_cells(writer, cells, np.concatenate(z), list(parts) if is_joint else [])
            return None
    for name, part in parts.items():
        if part.obsm:
            (key,) = part.obsm
            images = np.concatenate(counts[name]).reshape(-1, *part.obsm[key].shape[1:])
            parts[name] = AnnData(obs=cells[[]].copy(), obsm={key: images})
            continue
        x = sparse.vstack(counts[name], format="csr")
        layers = {layer: x.copy() for layer in named_layers(part)}
        parts[name] = AnnData(x, obs=cells[[]].copy(), var=part.var, layers=layers)
    collected = assembled(parts) if is_joint else parts[COUNTS]
    collected.obs, collected.obsm["z"] = cells, np.concatenate(z)
    collected.uns.update(empty.uns)
    return cast("Cells", collected)


def named_layers(adata: AnnData) -> dict[str, Any]:
    """Return the layers by name, without X, which newer versions of anndata list as None."""
    return {name: values for name, values in adata.layers.items() if name is not None}


def matrix_key(prefix: str, layer: str | None) -> str:
    """Return the key of a modality's layer in a file. None is ``X``."""
    return f"{prefix}X" if layer is None else f"{prefix}layers/{layer}"


def merged(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Merge two dictionaries, and dictionaries that both contain. Entries of ``other`` win."""
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
        # MuData stores which cells have the modality, and their positions in it, counted from 1
        writer.write(f"obsm/{name}", np.ones((len(obs), 1), dtype=bool))
        writer.write(f"obsmap/{name}", np.arange(1, len(obs) + 1, dtype=np.uint32))


def _copy_file(source: h5py.File, left_out: Collection[str], target: Path) -> None:
    """Copy an open file without some layers. HDF5 would not free the space of deleted layers."""
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
def _without_format_warnings() -> Iterator[None]:
    """Hide the warnings of anndata and zarr about future formats."""
    with warnings.catch_warnings():
        for message in ("Writing zarr v2", "Consolidated metadata", "zarr v3 autosharding"):
            warnings.filterwarnings("ignore", message=message)
        yield
