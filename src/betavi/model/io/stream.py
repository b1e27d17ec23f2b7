"""Files that denoised values go into a minibatch at a time, and that can be gone on with."""

from __future__ import annotations

import json
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, TypedDict

import h5py
import zarr

from betavi.model.io.files import (
    PlannedMatrix,
    beside,
    bring_back,
    discard,
    note,
    remove,
    take_place,
    write_below,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    import pandas as pd

PROGRESS = "betavi_progress.json"


class Form(NamedTuple):
    """What a file is beside the matrices that are streamed into it."""

    write: Callable[[Path], None]
    """Writes it, without the matrices, to a path."""
    is_folder: bool
    """Whether it is a folder of zarr, and not a file of HDF5."""
    is_checked: bool = True
    """Whether to write it once before anything is computed, to see that it can be."""
    tables: Mapping[str, pd.DataFrame] = {}  # never written to
    """Of a folder, by their keys, what is written again at the end: it may have changed since."""


class Progress(TypedDict):
    """What is done, as it is written down after each minibatch."""

    asked: str
    seed: int
    rows: dict[str, int]
    entries: dict[str, int]
    notes: dict[str, dict[str, float]]


class Stream:
    """A folder beside a file to be, which takes the file's place when everything is there.

    Until then a file that exists is as it was. A call that asks for the same goes on where another
    one ended, whatever ended it: how many rows are done is written down after they are, in one
    step, and what was written after them is forgotten.

    Parameters
    ----------
    out
        The file to be.
    asked
        What it is to hold, in short: what was begun of something else is begun anew.
    seed
        Of the draws, where it is begun anew.
    plan
        The matrices, by their keys in the file.
    form
        What the file is beside them.
    """

    def __init__(
        self, out: Path, asked: str, seed: int, plan: Mapping[str, PlannedMatrix], form: Form
    ) -> None:
        self.out, self.plan, self.form = out, plan, form
        self.folder = out.with_name(f"{out.name}.partial")
        self._tidy()
        self.progress = self._read(asked) or self._begun(asked, seed)
        self.group = _opened(self.folder)
        for key, matrix in plan.items():
            n_entries = self.progress["entries"].get(key, 0)
            matrix.cut(self.group, key, self.n_rows(matrix.part), n_entries)

    def _tidy(self) -> None:
        """Bring back or remove what a process left that was killed between two steps."""
        bring_back(self.out)
        for left in (beside(self.out, "old"), beside(self.out, "new"), beside(self.folder, "gone")):
            remove(left)

    @property
    def seed(self) -> int:
        """Of the draws: that of the call which began it."""
        return self.progress["seed"]

    def n_rows(self, part: str) -> int:
        """Return how many rows of the matrices of a part are done."""
        return self.progress["rows"].get(part, 0)

    def notes(self, part: str) -> dict[str, float]:
        """Return what was to be remembered of the rows that are done."""
        return self.progress["notes"].get(part, {})

    def add(self, part: str, rows: Mapping[str, Any], notes: dict[str, float]) -> None:
        """Write the next rows of matrices of a part, and what is to be remembered of them."""
        start = n_rows = self.n_rows(part)
        for key, values in rows.items():
            self.plan[key].add(self.group, key, start, values)
            if self.plan[key].is_sparse:
                entries = self.progress["entries"]
                entries[key] = entries.get(key, 0) + int(values.nnz)
            n_rows = start + values.shape[0]
        self.progress["rows"][part] = n_rows
        self.progress["notes"][part] = notes
        self._write_down(self.progress, self.folder)

    def finish(self, records: Mapping[str, dict[str, Any]]) -> None:
        """Let it take the file's place, with what ``uns`` of each part is to say of it."""
        if self.form.is_folder:
            with _without_news():
                for key, table in self.form.tables.items():
                    write_below(self.group, key, table)
                for part, record in records.items():
                    note(self.group, part, record)
                zarr.consolidate_metadata(self.group.store)
            take_place(self.folder, self.out)
            remove(self.out / PROGRESS)
            return
        new = beside(self.out, "new")
        try:
            self.form.write(new)
            with h5py.File(new, "r+") as target:
                for key, matrix in self.plan.items():
                    matrix.copy(self.group, target, key)
                for part, record in records.items():
                    note(target, part, record)
            take_place(new, self.out)
        finally:
            remove(new)
        discard(self.folder)

    def _begun(self, asked: str, seed: int) -> Progress:
        if self.folder.exists() and not (self.folder / PROGRESS).exists():
            raise FileExistsError(
                f"{self.folder} is where unfinished work would be, and is none. Rename it, or out."
            )
        new = beside(self.out, "new")
        progress = Progress(asked=asked, seed=seed, rows={}, entries={}, notes={})
        try:
            remove(new)
            with _without_news():
                if self.form.is_folder or self.form.is_checked:
                    self.form.write(new)
                if not self.form.is_folder:
                    remove(new)
                    zarr.open_group(new, mode="w")
                group = _opened(new)
                for key, matrix in self.plan.items():
                    matrix.begin(group, key)
            self._write_down(progress, new)
            discard(self.folder)
            new.rename(self.folder)
        finally:
            remove(new)
        return progress

    def _read(self, asked: str) -> Progress | None:
        try:
            progress: Progress = json.loads((self.folder / PROGRESS).read_text())
        except (OSError, ValueError):
            return None
        if progress.get("asked") != asked:
            return None
        group = _opened(self.folder)
        return progress if all(key in group for key in self.plan) else None

    def _write_down(self, progress: Progress, folder: Path) -> None:
        new = folder / f"{PROGRESS}.new"
        new.write_text(json.dumps(progress))
        new.replace(folder / PROGRESS)


def _opened(folder: Path) -> Any:
    # what anndata consolidates it does not let anyone add to
    return zarr.open_group(folder, mode="r+", use_consolidated=False)


@contextmanager
def _without_news() -> Iterator[None]:
    """Leave out what anndata and zarr say of formats to come, and of a file that is not theirs."""
    with warnings.catch_warnings():
        for news in (
            "Writing zarr v2", "Consolidated metadata", "zarr v3 autosharding", f"Object at {PROGRESS}"
        ):  # fmt: skip
            warnings.filterwarnings("ignore", message=news)
        yield
