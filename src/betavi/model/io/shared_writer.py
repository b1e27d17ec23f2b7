"""Writer of one store from several processes, which were started together, e.g. by ``torchrun``."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr
from torch import distributed

from betavi.model.io.writer import Writer

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType
    from typing import Self


def share_of(n_rows: int, chunk: int, rank: int, n_processes: int) -> slice:
    """Return the rows of one process. No chunk of rows is in two shares."""
    chunks = np.array_split(np.arange(-(-n_rows // chunk)), n_processes)[rank]
    start, stop = (int(chunks[0]), int(chunks[-1]) + 1) if len(chunks) else (0, 0)
    return slice(start * chunk, min(stop * chunk, n_rows))


def join_processes() -> None:
    """Connect the processes that ``torchrun`` started, unless they are connected."""
    if distributed.is_initialized():
        return
    if not {"RANK", "WORLD_SIZE", "MASTER_ADDR"} <= set(os.environ):
        raise ValueError(
            "in_processes=True divides the cells between processes, but this process is alone. "
            "Start the script with: torchrun --nproc-per-node 2 script.py. Or, leave "
            "`in_processes` out."
        )
    distributed.init_process_group("gloo")


def from_first(value: Any) -> Any:
    """Return the value of the first process."""
    values = [value]
    distributed.broadcast_object_list(values)
    return values[0]


class SharedWriter(Writer):
    """Writer of dense matrices, to which each process writes its rows.

    The first process writes all other elements. Every process makes each call. If one fails, no
    process replaces the target.

    Parameters
    ----------
    writer
        Writer of the whole store.
    chunk
        Number of rows in a chunk of the store.
    """

    def __init__(self, writer: Writer, chunk: int) -> None:
        super().__init__(writer.target, writer.ending, writer.write_template)
        self.chunk, self.is_first = chunk, distributed.get_rank() == 0
        self._sizes: dict[str, int] = {}
        self._next: dict[str, int] = {}

    def share(self, prefix: str, n_rows: int) -> slice:
        """Return the rows of a modality that this process writes."""
        self._sizes[prefix] = n_rows
        return share_of(n_rows, self.chunk, distributed.get_rank(), distributed.get_world_size())

    def __enter__(self) -> Self:
        """Write the template in the first process, and open it in the others."""
        if self.is_first:
            super().__enter__()
        new: Path = from_first(self._new if self.is_first else None)
        if not self.is_first:
            self.file = zarr.open_group(new, mode="r+", use_consolidated=False)
        return self

    def append(self, key: str, rows: Any) -> None:
        """Write the next rows of this process, ``(n_cells, n_features)``, dense."""
        if key not in self._next:
            if self.is_first:
                self._create_matrix(key, rows)
            # the others find the matrix
            distributed.barrier()
            self._next[key] = self.share(_prefix(key), self._sizes[_prefix(key)]).start
        start = self._next[key]
        self._next[key] = start + len(rows)
        self.file[key][start : start + len(rows)] = rows

    def add_record(self, prefix: str, record: dict[str, Any]) -> None:
        """Merge a record into ``uns["betavi"]`` in the first process."""
        if self.is_first:
            super().add_record(prefix, record)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Complete the store when all processes have written their rows."""
        try:
            if kind is None:
                distributed.barrier()
        except RuntimeError as lost:
            kind, error, trace = type(lost), lost, lost.__traceback__
            raise RuntimeError(
                "Another process ended before it had written its rows. Read its error, and start "
                "all processes again. The file is unchanged."
            ) from lost
        finally:
            if self.is_first:
                super().__exit__(kind, error, trace)
            if kind is None:
                # no process reads the store before it is complete
                distributed.barrier()
            else:
                # closes the connections, for which the other processes wait
                distributed.destroy_process_group()

    def _create_matrix(self, key: str, rows: Any) -> None:
        n_rows, n_columns = self._sizes[_prefix(key)], rows.shape[1]
        self.write(key, np.zeros((0, n_columns), dtype=rows.dtype), dataset_kwargs={
            "chunks": (self.chunk, max(1, n_columns)),
        })  # fmt: skip
        self.file[key].resize((n_rows, n_columns))


def _prefix(key: str) -> str:
    """Return the part of a key that names the modality, as in ``mod/rna/``."""
    return "/".join(key.split("/")[:2]) + "/" if key.startswith("mod/") else ""
