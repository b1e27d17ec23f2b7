"""Rows of any container, type and layout are those of the dense matrix."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from betavi import _blocks
from betavi.data import AlignedRows, Rows


def unsorted(matrix):
    """Return a CSR matrix with the columns of each row in descending order, and split entries."""
    matrix = sparse.csr_matrix(matrix)
    half = sparse.csr_matrix(
        (matrix.data // 2, matrix.indices.copy(), matrix.indptr.copy()), matrix.shape
    )
    rest = matrix - half
    rows = [
        np.concatenate([half[i].indices, rest[i].indices])[::-1]
        for i in range(len(matrix.indptr) - 1)
    ]
    data = [
        np.concatenate([half[i].data, rest[i].data])[::-1] for i in range(len(matrix.indptr) - 1)
    ]
    indptr = np.cumsum([0, *map(len, rows)])
    return sparse.csr_matrix((np.concatenate(data), np.concatenate(rows), indptr), matrix.shape)


def lazy(matrix):
    array = pytest.importorskip("dask.array")
    return array.from_array(matrix, chunks=(2, matrix.shape[1]))


CONTAINERS = {
    "rows": np.ascontiguousarray,
    "columns": np.asfortranarray,
    "strided": lambda matrix: np.repeat(matrix, 2, axis=1)[:, ::2],
    "csr_matrix": sparse.csr_matrix,
    "csr_array": sparse.csr_array,
    "csc_matrix": sparse.csc_matrix,
    "csc_array": sparse.csc_array,
    "unsorted": unsorted,
    "frame": pd.DataFrame,
    "zarr": lambda matrix: pytest.importorskip("zarr").array(np.ascontiguousarray(matrix)),
    "dask": lazy,
}
TYPES = (
    "int8",
    "int16",
    "int32",
    "int64",
    "uint8",
    "uint16",
    "uint32",
    "float32",
    "float64",
    "bool",
)


@st.composite
def matrices(draw):
    shape = draw(st.integers(1, 7)), draw(st.integers(1, 5))
    dtype = draw(st.sampled_from(TYPES))
    largest = 1 if dtype == "bool" else 100
    values = draw(st.lists(st.integers(0, largest), min_size=shape[0] * shape[1], max_size=35))
    return np.array(values[: shape[0] * shape[1]]).reshape(shape).astype(dtype)


OPTIONS = {"deadline": None, "derandomize": True, "database": None}
CASE = {"matrix": matrices(), "container": st.sampled_from(sorted(CONTAINERS)), "data": st.data()}


@settings(max_examples=150, **OPTIONS)
@given(**CASE)
def test_rows_are_those_of_the_dense_matrix(matrix, container, data):
    check_rows(matrix, container, data)


@pytest.mark.slow
@settings(max_examples=1000, **OPTIONS)
@given(**CASE)
def test_a_thousand_rows_are_those_of_the_dense_matrix(matrix, container, data):
    check_rows(matrix, container, data)


def check_rows(matrix, container, data):
    rows = Rows(CONTAINERS[container](matrix))
    cells = np.array(data.draw(st.lists(st.integers(0, len(matrix) - 1), max_size=6)), dtype=int)
    np.testing.assert_array_equal(rows.dense(cells, np.float32), matrix[cells].astype(np.float32))
    np.testing.assert_allclose(rows.totals(), matrix.sum(axis=1, dtype=float))
    with pytest.MonkeyPatch.context() as patch:
        for name in ("SCANNED_ENTRIES", "FILE_ENTRIES"):
            patch.setattr(_blocks, name, 7)
        blocks = [part for _, part in rows.blocks()]
    joined = np.vstack([b.toarray() if sparse.issparse(b) else np.asarray(b) for b in blocks])
    np.testing.assert_array_equal(joined, matrix)
    # as a modality that some cells lack
    position = np.concatenate([np.arange(len(matrix)), [-1]])
    aligned = AlignedRows(rows, position)
    whole = np.vstack([matrix, np.zeros((1, matrix.shape[1]), dtype=matrix.dtype)])
    np.testing.assert_array_equal(aligned.dense(np.arange(len(whole)), np.float32), whole)
