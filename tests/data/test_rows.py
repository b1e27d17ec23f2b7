"""Rows of a matrix, and rows of one modality of an object, through one interface."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from betavi.data import AlignedRows, Rows

STORED = np.array([[0, 2, 0], [1, 0, 0], [0, 0, 3], [4, 0, 5]])
KINDS = {
    "rows": (None, STORED),
    # four of six cells have the modality, in another order than its rows
    "aligned": (np.array([-1, 2, 0, -1, 3, 1]), None),
    "aligned to nothing": (np.array([-1, -1]), None),
}


@pytest.fixture(params=KINDS)
def kind(request):
    """Rows of either kind, and the same matrix by the cells of the object, in full."""
    position, expected = KINDS[request.param]

    def make(container):
        rows = Rows(container(STORED))
        return rows if position is None else AlignedRows(rows, position)

    if position is not None:
        expected = np.where(position[:, None] >= 0, STORED[position], 0)
    return make, expected


@pytest.mark.parametrize("container", [np.asarray, sparse.csr_array, sparse.csc_matrix])
def test_either_kind_is_read_in_the_same_way(kind, container):
    make, expected = kind
    rows, cells = make(container), np.arange(len(expected))[::-1]
    assert rows.shape == expected.shape
    assert rows.dtype == STORED.dtype
    assert not rows.in_file
    np.testing.assert_array_equal(rows.dense(cells, np.float32), expected[cells])
    cut = rows[cells]
    np.testing.assert_array_equal(cut.toarray() if sparse.issparse(cut) else cut, expected[cells])
    np.testing.assert_array_equal(rows.totals(), expected.sum(axis=1))


def test_either_kind_says_which_cells_have_which_stored_row(kind):
    make, expected = kind
    rows = make(sparse.csr_array)
    assert rows.present.dtype == bool
    assert rows.present.shape == (len(expected),)
    # every stored row of these has counts
    np.testing.assert_array_equal(rows.present, expected.any(axis=1))
    np.testing.assert_array_equal(rows.position >= 0, rows.present)
    assert isinstance(rows.stored, Rows)
    stored = np.concatenate([block.toarray() for _, block in rows.blocks()])
    np.testing.assert_array_equal(stored, STORED)
    if rows.present.any():
        np.testing.assert_array_equal(expected[rows.cells], STORED)
    else:
        assert not len(rows.cells)


def test_rows_are_their_own_stored_rows():
    rows = Rows(STORED)
    assert rows.stored is rows
    assert AlignedRows(rows, np.array([1])).stored is rows
