"""Counts of an object, and rows of a matrix: CSR, CSC or dense, in memory or in a file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import pandas as pd
from anndata.abc import CSCDataset, CSRDataset
from scipy import sparse

from betavi import _blocks
from betavi.data.stored import StackedRows, StoredMatrix, read_runs

if TYPE_CHECKING:
    from collections.abc import Iterator

    from anndata import AnnData

INDEXABLE = [np.dtype(kind) for kind in ("f4", "f8", "i1", "i2", "i4", "i8", "u1", "?")]
"""Entry types that PyTorch can index."""

MOVED_COUNTS = "counts_moved_to"
"""Key of ``uns["betavi"]`` for the layer that holds counts moved from ``X``."""


def counts_layer(adata: AnnData, layer: str | None) -> str | None:
    """Return the layer that holds the counts. ``denoise`` may have moved the counts from ``X``.

    Parameters
    ----------
    adata
        Object with counts.
    layer
        Layer that the user named. If None, the user means ``X``.

    Returns
    -------
    Name of the layer. None if the counts are in ``X``.

    Examples
    --------
    >>> import betavi
    >>> from betavi.data import MOVED_COUNTS, counts_layer
    >>> adata = betavi.datasets.simulate_counts(n_cells=10, n_genes=5)
    >>> adata.uns["betavi"] = {MOVED_COUNTS: "counts"}
    >>> counts_layer(adata, None), counts_layer(adata, "raw")
    ('counts', 'raw')
    """
    return adata.uns.get("betavi", {}).get(MOVED_COUNTS) if layer is None else layer


def counts_of(adata: AnnData, layer: str | None) -> Any:
    """Return the matrix of counts, from ``X`` or from the layer of :func:`counts_layer`.

    Parameters
    ----------
    adata, layer
        See :func:`counts_layer`.

    Returns
    -------
    Matrix, ``(n_cells, n_genes)``, as stored.

    Raises
    ------
    KeyError
        If the layer is missing.

    Examples
    --------
    >>> import betavi
    >>> from betavi.data import counts_of
    >>> adata = betavi.datasets.simulate_counts(n_cells=10, n_genes=5)
    >>> counts_of(adata, None) is adata.X
    True
    """
    layer = counts_layer(adata, layer)
    if layer is not None and layer not in adata.layers:
        raise KeyError(
            f"layers[{layer!r}] is missing, but the model reads the counts from this layer. "
            "Restore the layer. Or, if denoise() moved the counts from X to this layer, and X "
            f"holds the counts again, run: del adata.uns['betavi'][{MOVED_COUNTS!r}]"
        )
    return adata.X if layer is None else adata.layers[layer]


def is_lazy(data: Any) -> bool:
    """Return True for an array of zarr or dask. Both libraries are optional."""
    return type(data).__module__.split(".")[0] in ("zarr", "dask") and hasattr(data, "shape")


def is_in_file(data: Any) -> bool:
    """Return True for a matrix whose rows are read from a file when they are needed."""
    return isinstance(data, h5py.Dataset | CSRDataset) or is_lazy(data)


def _computed(rows: Any) -> Any:
    """Return rows in memory; dask computes its arrays only when they are needed."""
    return rows.compute() if hasattr(rows, "compute") else rows


class Rows:
    """Rows of a sparse or dense matrix, in memory or in a file.

    :class:`AlignedRows` has the same attributes and methods.

    Parameters
    ----------
    data
        SciPy sparse matrix or array, NumPy array, data frame, or matrix of a backed
        :class:`~anndata.AnnData`, or array of zarr or dask. CSC is converted to CSR, which loads a file into memory.

    Raises
    ------
    TypeError
        If ``data`` has another type.

    Examples
    --------
    >>> from scipy import sparse
    >>> from betavi.data import Rows
    >>> rows = Rows(sparse.csc_array([[0, 2], [1, 0], [0, 3]]))
    >>> rows.dense(np.array([2, 0, 2]), np.float32).tolist(), rows.totals().tolist()
    ([[0.0, 3.0], [0.0, 2.0], [0.0, 3.0]], [2.0, 1.0, 3.0])
    """

    def __init__(self, data: Any) -> None:
        if isinstance(data, CSCDataset):
            data = data.to_memory()
        elif isinstance(data, CSRDataset) and not isinstance(data, StackedRows):
            data = StackedRows([StoredMatrix(data.group)])
        if sparse.issparse(data):
            data = data.tocsr()
        elif isinstance(data, pd.DataFrame):
            data = data.to_numpy()
        elif isinstance(data, np.ma.MaskedArray):
            raise TypeError(
                "Cannot read rows of a masked array, because masked values are not counts. Fill the "
                "values, e.g. matrix.filled(0), or remove the mask: matrix.data"
            )
        elif not isinstance(data, np.ndarray) and not is_in_file(data):
            raise TypeError(
                f"Cannot read rows of a {type(data).__name__}. Use a SciPy sparse matrix, a NumPy "
                "array, a data frame, a backed AnnData, or an array of zarr or dask."
            )
        n_rows, *n_columns = data.shape
        self.shape = n_rows, int(np.prod(n_columns))
        # the rows of images are flat; this is a view of the user's array
        self.is_image = len(n_columns) > 1
        self._data = data.reshape(self.shape) if self.is_image else data
        self.in_file = is_in_file(data)
        self.is_sparse = sparse.issparse(data)
        self.dtype = np.dtype(data.dtype)

    @property
    def stored(self) -> Rows:
        """The stored rows. Here, every cell has a stored row, so this is the object itself."""
        return self

    @property
    def compressed(self) -> sparse.csr_array | sparse.csr_matrix | None:
        """The matrix without duplicate entries, if it is sparse and in memory."""
        if not self.is_sparse:
            return None
        matrix = self._data
        if not matrix.has_canonical_format:
            # a sum of small integers would overflow
            matrix = matrix.copy() if matrix.dtype.itemsize > 2 else matrix.astype(np.float32)
            matrix.sum_duplicates()
        return matrix if matrix.dtype in INDEXABLE else matrix.astype(np.float32)

    @property
    def position(self) -> np.ndarray:
        """Stored row of each cell, ``(n_cells,)``."""
        return np.arange(self.shape[0])

    @property
    def cells(self) -> np.ndarray:
        """Cell of each stored row, ``(n_rows,)``."""
        return self.position

    @property
    def present(self) -> np.ndarray:
        """Mask of the cells that have a stored row, ``(n_cells,)``."""
        return np.ones(self.shape[0], dtype=bool)

    def n_bytes(self, dtype: type) -> int:
        """Return the bytes that the entries take on a device. Dense entries have the given type."""
        if not self.is_sparse:
            return int(np.prod(self.shape)) * np.dtype(dtype).itemsize
        width = self.dtype.itemsize if self.dtype in INDEXABLE else np.float32().itemsize
        return self._data.nnz * (width + self._data.indices.itemsize)

    @property
    def chunk_rows(self) -> int:
        """Approximate number of rows that a file stores together; 1 in memory."""
        if isinstance(self._data, StackedRows):
            return self._data.chunk_rows
        rows = (getattr(self._data, "chunks", None) or (1,))[0]
        return max(rows) if isinstance(rows, tuple) else int(rows)

    @property
    def per_row(self) -> int:
        """Approximate number of stored entries in a row."""
        n_rows, n_columns = self.shape
        return max(1, int(getattr(self._data, "nnz", n_rows * n_columns)) // max(1, n_rows))

    def __getitem__(self, cells: np.ndarray) -> Any:
        """Return the rows of the given cells, as a CSR matrix or a dense array."""
        if not self.in_file:
            return self._data[cells]
        # a file is read in order, each row once
        unique, position = np.unique(cells, return_inverse=True)
        if not is_lazy(self._data):
            return read_runs(self._data, unique)[position]
        data = getattr(self._data, "oindex", self._data)
        return _computed(data[unique])[position]

    def dense(self, cells: np.ndarray, dtype: type) -> np.ndarray:
        """Return the rows of the given cells as a dense array of this type."""
        cut = self[cells]
        if sparse.issparse(cut):
            return cut.astype(dtype, copy=False).toarray()
        return np.asarray(cut).astype(dtype, copy=False)

    def blocks(self) -> Iterator[tuple[int, Any]]:
        """Yield blocks of consecutive stored rows, each with the number of its first row."""
        entries = _blocks.FILE_ENTRIES if self.in_file else _blocks.SCANNED_ENTRIES
        size = max(1, entries // self.per_row)
        for start in range(0, self.shape[0], size):
            yield start, _computed(self._data[start : start + size])

    def totals(self) -> np.ndarray:
        """Return the sum of each cell's row, ``(n_cells,)``, in double precision."""
        sums = [np.asarray(block.sum(axis=1, dtype=np.float64)) for _, block in self.blocks()]
        return np.concatenate([total.ravel() for total in sums]) if sums else np.zeros(0)


class AlignedRows:
    """:class:`Rows` of one modality, indexed by the cells of a whole object.

    Cells without the modality are not stored. Their rows are zero in the returned arrays.

    Parameters
    ----------
    stored
        Rows of the cells that have the modality.
    position
        Stored row of each cell of the object, ``(n_cells,)``; -1 for a cell without the modality.

    Examples
    --------
    >>> from betavi.data import AlignedRows, Rows
    >>> aligned = AlignedRows(Rows(np.array([[5, 1]])), position=np.array([-1, 0]))
    >>> aligned[np.array([0, 1])].toarray().tolist(), aligned.totals().tolist()
    ([[0, 0], [5, 1]], [0.0, 6.0])
    """

    def __init__(self, stored: Rows, position: np.ndarray) -> None:
        self.stored = stored
        self.position, self.present = position, position >= 0
        self.in_file, self.is_sparse, self.dtype = stored.in_file, stored.is_sparse, stored.dtype
        self.is_image = stored.is_image
        self.shape = len(position), stored.shape[1]
        self.blocks = stored.blocks
        self.chunk_rows, self.per_row = stored.chunk_rows, stored.per_row

    @property
    def compressed(self) -> sparse.csr_array | sparse.csr_matrix | None:
        """See :attr:`Rows.compressed`."""
        return self.stored.compressed

    @property
    def cells(self) -> np.ndarray:
        """See :attr:`Rows.cells`."""
        here = np.flatnonzero(self.present)
        return here[np.argsort(self.position[here])]

    def n_bytes(self, dtype: type) -> int:
        """See :meth:`Rows.n_bytes`. A dense modality is padded with zeros on the device."""
        if self.is_sparse:
            return self.stored.n_bytes(dtype)
        return int(np.prod(self.shape)) * np.dtype(dtype).itemsize

    def __getitem__(self, cells: np.ndarray) -> sparse.csr_array:
        """Return the rows of the given cells as a CSR matrix."""
        cells = np.asarray(cells)
        here = np.flatnonzero(self.present[cells])
        cut = self.stored[self.position[cells[here]]]
        # SciPy has no sparse matrices in half precision
        if cut.dtype == np.float16:
            cut = cut.astype(np.float32)
        cut = sparse.csr_array(cut)
        lengths = np.zeros(len(cells), dtype=np.int64)
        lengths[here] = np.diff(cut.indptr)
        indptr = np.concatenate([[0], np.cumsum(lengths)])
        return sparse.csr_array((cut.data, cut.indices, indptr), shape=(len(cells), cut.shape[1]))

    def dense(self, cells: np.ndarray, dtype: type) -> np.ndarray:
        """See :meth:`Rows.dense`."""
        cells = np.asarray(cells)
        here = self.present[cells]
        filled: np.ndarray = np.zeros((len(cells), self.shape[1]), dtype=dtype)
        if here.any():
            filled[here] = self.stored.dense(self.position[cells[here]], dtype)
        return filled

    def totals(self) -> np.ndarray:
        """See :meth:`Rows.totals`. 0 for a cell without the modality."""
        totals = np.zeros(self.shape[0])
        totals[self.present] = self.stored.totals()[self.position[self.present]]
        return totals
