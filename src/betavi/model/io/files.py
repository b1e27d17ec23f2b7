"""Matrices in files, and files that take the place of others in one step."""

from __future__ import annotations

from shutil import copymode, rmtree
from typing import TYPE_CHECKING, Any, NamedTuple

import h5py
import numpy as np
from anndata.io import read_elem, sparse_dataset, write_elem
from scipy import sparse

if TYPE_CHECKING:
    from pathlib import Path

ENTRIES_AT_ONCE = 2**17
"""Entries of a sparse matrix in one piece of a file."""


class PlannedMatrix(NamedTuple):
    """A matrix that a file is to have, written from its first row on, some rows at once."""

    part: str
    """The group of the file that it is in: none, or that of a modality."""
    shape: tuple[int, int]
    dtype: str
    is_sparse: bool
    rows_at_once: int

    def begin(self, group: Any, key: str) -> None:
        """Make room for it in a group of a file, HDF5 or zarr."""
        n_rows, n_columns = self.shape
        if self.is_sparse:
            none = sparse.csr_matrix((0, n_columns), dtype=self.dtype)
            # of as many entries as there may come
            none.indptr = none.indptr.astype(np.int64)
            write_below(group, key, none, dataset_kwargs={"chunks": (ENTRIES_AT_ONCE,)})
            return
        piece = (max(1, min(self.rows_at_once, n_rows)), max(1, n_columns))
        growing = {"maxshape": (None, n_columns)} if isinstance(group, h5py.Group) else {}
        nothing = np.zeros((0, n_columns), dtype=self.dtype)
        write_below(group, key, nothing, dataset_kwargs={"chunks": piece, **growing})
        group[key].resize((n_rows, n_columns))

    def add(self, group: Any, key: str, start: int, rows: Any) -> None:
        """Write rows, ``start`` of which are there before them."""
        if self.is_sparse:
            sparse_dataset(group[key]).append(rows)
        else:
            group[key][start : start + rows.shape[0]] = rows

    def cut(self, group: Any, key: str, n_rows: int, n_entries: int) -> None:
        """Forget what was written after so many rows with so many entries."""
        if self.is_sparse:
            matrix = group[key]
            for name, size in (("data", n_entries), ("indices", n_entries), ("indptr", n_rows + 1)):
                matrix[name].resize((size,))
            matrix.attrs["shape"] = [n_rows, self.shape[1]]

    def copy(self, source: Any, target: Any, key: str) -> None:
        """Copy it from one file to another."""
        self.begin(target, key)
        data = sparse_dataset(source[key]) if self.is_sparse else source[key]
        for start in range(0, self.shape[0], self.rows_at_once):
            self.add(target, key, start, data[start : start + self.rows_at_once])


def write_below(group: Any, key: str, element: Any, **kwargs: Any) -> None:
    """Write an element below groups of a group, which newer versions of anndata do not by a path."""
    holder, _, name = key.rpartition("/")
    write_elem(group.require_group(holder) if holder else group, name, element, **kwargs)


def note(group: Any, part: str, records: dict[str, Any]) -> None:
    """Add to what betavi keeps in ``uns`` of a file."""
    key = f"{part}uns/betavi"
    before = read_elem(group[key]) if key in group else {}
    write_below(group, key, merged(before, records))


def merged(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Return both; of a dictionary in both what either has, the latter's where both have it."""
    both = {**one, **other}
    for key in one.keys() & other.keys():
        if isinstance(one[key], dict) and isinstance(other[key], dict):
            both[key] = {**one[key], **other[key]}
    return both


def copy_file(source: h5py.File, left_out: set[str], target: Path) -> None:
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


def beside(path: Path, word: str) -> Path:
    """Return a hidden name beside a path that is nobody else's."""
    return path.with_name(f".{path.name}.betavi-{word}")


def take_place(new: Path, old: Path) -> None:
    """Let a file or a folder become another, which is gone only when the new one is there."""
    aside = beside(old, "old")
    if old.is_dir():
        remove(aside)
        old.rename(aside)
    try:
        if old.is_file():
            copymode(old, new)
        new.replace(old)
    finally:
        bring_back(old)
    remove(aside)


def bring_back(path: Path) -> None:
    """Let what was to be replaced have its name again, if nothing took its place."""
    aside = beside(path, "old")
    if aside.exists() and not path.exists():
        aside.rename(path)


def discard(path: Path) -> None:
    """Remove a file or a folder so that no part of it is ever taken for the whole."""
    aside = beside(path, "gone")
    remove(aside)
    if path.exists():
        path.rename(aside)
    remove(aside)


def remove(path: Path) -> None:
    """Remove a file or a folder, if there is one."""
    if path.is_dir() and not path.is_symlink():
        rmtree(path)
    else:
        path.unlink(missing_ok=True)
