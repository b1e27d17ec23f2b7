"""Matrices whose rows stay in one file or several."""

from __future__ import annotations

import os
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import zarr
from anndata.abc import CSRDataset
from scipy import sparse

from betavi import _blocks

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from anndata import AnnData
    from mudata import MuData

BRIDGED = 16
"""Largest number of unwanted rows that are read between two wanted rows. Not tuned."""


MOST_OPEN = 64
"""Most files that are open at once. Operating systems often allow 1,024."""


def state_of(path: Path) -> tuple[int, ...]:
    """Return what changes if a file is replaced or written to."""
    try:
        found = path.stat()
    except FileNotFoundError:
        raise FileNotFoundError(
            f"{path} does not exist. An object of read_lazy reads its counts from the file. Put the file back, or "
            "read the file at its new place."
        ) from None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def open_file(path: Path, state: tuple[int, ...]) -> Any:
    """Open an HDF5 file or a folder of zarr, to read only. Refuse a file that changed."""
    if state_of(path) != state:
        raise ValueError(
            f"{path} changed after read_lazy. Run betavi.data.read_lazy and the setup again."
        )
    return _handle(path, state, os.getpid())


@lru_cache(maxsize=MOST_OPEN)
def _handle(path: Path, _state: tuple[int, ...], _process: int) -> Any:
    # each process opens the file itself, because processes cannot share an open HDF5 file
    return zarr.open_group(path, mode="r") if path.is_dir() else h5py.File(path, mode="r")


def files_of(data: AnnData | MuData) -> list[Path]:
    """Return the files that hold the matrices of an object from :func:`read_lazy`.

    Parameters
    ----------
    data
        AnnData or MuData.

    Returns
    -------
    Paths, each once. Empty for an object in memory.

    Examples
    --------
    >>> import betavi
    >>> from tempfile import mkdtemp
    >>> path = f"{mkdtemp()}/cells.h5ad"
    >>> from betavi.data import files_of, read_lazy
    >>> adata = betavi.datasets.simulate_counts(n_cells=50, n_genes=20)
    >>> adata.write_h5ad(path)
    >>> len(files_of(adata)), [path.name for path in files_of(read_lazy(path))]
    (0, ['cells.h5ad'])
    """
    parts = data.mod.values() if hasattr(data, "mod") else [data]
    matrices = [matrix for part in parts for matrix in (part.X, *part.layers.values())]
    stacks = [matrix for matrix in matrices if isinstance(matrix, StackedRows)]
    paths = (part.path for stack in stacks for part in stack.parts)
    return list(dict.fromkeys(path for path in paths if path is not None))


def read_runs(data: Any, cells: np.ndarray) -> Any:
    """Return rows in increasing order, ``(n_cells,)``, each once, from slices of a matrix."""
    if not len(cells):
        return data[0:0]
    is_far = (np.diff(cells) > BRIDGED) | (np.diff(cells // _blocks.READ_ROWS) > 0)
    runs = np.split(cells, np.flatnonzero(is_far) + 1)
    parts = []
    for run in runs:
        first, last = int(run[0]), int(run[-1]) + 1
        part = data[first:last]
        parts.append(part if len(run) == last - first else part[run - first])
    if len(parts) == 1:
        return parts[0]
    is_sparse = sparse.issparse(parts[0])
    return sparse.vstack(parts, format="csr") if is_sparse else np.concatenate(parts)


class StoredMatrix:
    """CSR or dense matrix in one file.

    Parameters
    ----------
    element
        Group or array in an open file.
    path
        File to open again when it is read, also in another process. With None, only this process can read
        the matrix.

    Raises
    ------
    ValueError
        If the matrix is stored by column (CSC), or the element is not a matrix.
    """

    def __init__(self, element: Any, path: Path | None = None) -> None:
        self.path, self.key = path, element.name
        self.state = () if path is None else state_of(path)
        encoding = element.attrs.get("encoding-type", "array")
        self.is_csr = "indptr" in element if hasattr(element, "keys") else False
        if encoding == "csc_matrix" or not (self.is_csr or hasattr(element, "chunks")):
            raise ValueError(
                f"{path or 'The file'}: {self.key} is stored as {encoding}, but only the rows of a CSR or dense "
                "matrix can be read from a file. Load the matrix, convert it with .tocsr(), and "
                "write the file again."
            )
        shape = element.attrs.get("shape", element.attrs.get("h5sparse_shape"))
        shape = shape if self.is_csr else element.shape
        self.shape = int(shape[0]), int(shape[1])
        values = element["data"] if self.is_csr else element
        # SciPy has no sparse matrices in half precision
        self.dtype = np.dtype(np.float32 if values.dtype == np.float16 else values.dtype)
        self.is_hdf5 = isinstance(element, h5py.Group | h5py.Dataset)
        self.n_entries = int(np.prod(values.shape))
        per_row = max(1, self.n_entries // max(1, self.shape[0])) if self.is_csr else 1
        self.chunk_rows = max(1, (values.chunks or (1,))[0] // per_row)
        self._element: Any = element if path is None else None
        self._arrays: dict[str, Any] = {}
        self._start, self._rows = -1, sparse.csr_array((0, 0))

    def __getstate__(self) -> dict[str, Any]:
        if self.path is None:
            raise TypeError(
                "A backed object cannot be passed to another process. Use betavi.data.read_lazy(path)."
            )
        return {**self.__dict__, "_arrays": {}, "_start": -1, "_rows": None}

    def _array(self, name: str = "") -> Any:
        """Return an array of the matrix: ``data``, ``indices``, ``indptr``, or a dense matrix."""
        if self.path is None:
            return self._element[name] if name else self._element
        file = open_file(self.path, self.state)
        if self.is_hdf5:
            # stored arrays would keep the file open
            return file[f"{self.key}/{name}" if name else self.key]
        if name not in self._arrays:
            self._arrays[name] = file[f"{self.key}/{name}" if name else self.key]
        return self._arrays[name]

    @cached_property
    def starts(self) -> np.ndarray:
        """Position of each row's first entry, ``(n_rows + 1,)``."""
        return np.asarray(self._array("indptr")[...])

    def read(self, first: int, last: int) -> sparse.csr_array:
        """Return the rows from ``first`` up to ``last``. Rows of the last chunk are stored."""
        if self.path is not None:
            # also if the rows are stored, a changed file is an error
            open_file(self.path, self.state)
        start = first - first % self.chunk_rows
        n_entries = self.n_entries // max(1, self.shape[0]) * self.chunk_rows
        if last - start > self.chunk_rows or n_entries > _blocks.FILE_ENTRIES:
            return self._read(first, last)
        if self._start != start:
            stop = min(start + self.chunk_rows, self.shape[0])
            self._start, self._rows = start, self._read(start, stop)
        return self._rows[first - start : last - start]

    def _read(self, first: int, last: int) -> sparse.csr_array:
        if not self.is_csr:
            rows = np.asarray(self._array()[first:last])
            return sparse.csr_array(rows.astype(self.dtype, copy=False))
        starts = self.starts[first : last + 1]
        entries = slice(int(starts[0]), int(starts[-1]))
        values, columns = (np.asarray(self._array(part)[entries]) for part in ("data", "indices"))
        values = values.astype(self.dtype, copy=False)
        shape = last - first, self.shape[1]
        return sparse.csr_array((values, columns, starts - starts[0]), shape=shape)


class StackedRows(CSRDataset):
    """Rows of several files, one file after the other, as a matrix of an AnnData.

    Parameters
    ----------
    parts
        Matrices with the same number of columns.

    Examples
    --------
    >>> import betavi
    >>> from tempfile import mkdtemp
    >>> path = f"{mkdtemp()}/cells.zarr"
    >>> adata = betavi.datasets.simulate_counts(n_cells=50, n_genes=20)
    >>> adata.write_zarr(path)
    >>> from betavi.data import read_lazy
    >>> rows = read_lazy([path, path]).X
    >>> rows.shape, rows[[0, 99]].shape
    ((100, 20), (2, 20))
    """

    def __init__(self, parts: Sequence[StoredMatrix]) -> None:
        self.parts = list(parts)
        self.ends = np.cumsum([part.shape[0] for part in self.parts])
        self.shape = int(self.ends[-1]), self.parts[0].shape[1]
        self.dtype = np.result_type(*(part.dtype for part in self.parts))

    ndim = 2

    @property
    def backend(self) -> str:
        """Kind of the first file."""
        return "hdf5" if self.parts[0].is_hdf5 else "zarr"

    @property
    def nnz(self) -> int:
        """Number of stored entries."""
        return sum(part.n_entries for part in self.parts)

    @property
    def chunk_rows(self) -> int:
        """Number of rows that the files store together, about."""
        return max(part.chunk_rows for part in self.parts)

    def __repr__(self) -> str:
        return f"StackedRows of {len(self.parts)} file(s), {self.shape}, {self.dtype}"

    def _read(self, first: int, last: int) -> sparse.csr_array:
        found = []
        for part, end in zip(self.parts, self.ends, strict=True):
            start = int(end) - part.shape[0]
            low, high = max(first, start), min(last, int(end))
            if low < high:
                found.append(part.read(low - start, high - start))
        if not found:
            return sparse.csr_array((0, self.shape[1]), dtype=self.dtype)
        return found[0] if len(found) == 1 else sparse.vstack(found, format="csr")

    def __getitem__(self, index: Any) -> Any:
        """Return some rows as CSR: a slice, positions or a mask, and the same for columns."""
        rows, columns = index if isinstance(index, tuple) else (index, slice(None))
        if isinstance(rows, slice) and rows.step in (None, 1):
            first, last, _ = rows.indices(self.shape[0])
            found = self._read(first, max(first, last))
        else:
            cells = np.arange(self.shape[0])[rows if isinstance(rows, slice) else np.ravel(rows)]
            unique, position = np.unique(cells, return_inverse=True)
            found = read_runs(self, unique)[position]
        every = isinstance(columns, slice) and columns == slice(None)
        return found if every else found[:, np.arange(self.shape[1])[_flat(columns)]]

    def sum(self, axis: int | None = None) -> Any:
        """Return sums in double precision: of each row (1), of each column (0), or of all."""
        per_row = max(1, self.nnz // max(1, self.shape[0]))
        size = max(1, _blocks.FILE_ENTRIES // per_row)
        blocks = (self._read(start, start + size) for start in range(0, self.shape[0], size))
        sums = [block.sum(axis=axis, dtype=np.float64) for block in blocks]
        return np.concatenate(sums) if axis in (1, -1) else np.sum(sums, axis=0)

    def to_memory(self) -> sparse.csr_array:
        """Return all rows in memory."""
        return self._read(0, self.shape[0])

    def copy(self) -> StackedRows:
        """Return the object itself, which nothing changes."""
        return self


def _flat(index: Any) -> Any:
    return index if isinstance(index, slice) else np.ravel(index)
