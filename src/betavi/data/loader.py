"""Minibatches, also those cut from counts that stay on a GPU. The speed on a GPU is not measured."""

from __future__ import annotations

import math
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler, SequentialSampler

from betavi.kernels import compiled

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from betavi.data.minibatches import CellDataset
    from betavi.data.rows import AlignedRows, Rows

SHARE_OF_MEMORY = 0.5
"""Largest share of a GPU's free memory that counts may take. Not tuned."""

SPARSE_ENOUGH = 0.5
"""Approximate share of nonzeros up to which CSR is faster than a dense product. Not tuned."""


def stays_compressed(device: torch.device, n_counts: int, shape: tuple[int, ...]) -> bool:
    """Return True if the model reads these counts as CSR tensors on this device."""
    may_be = device.type == "cpu" and compiled is not None
    return may_be and n_counts < SPARSE_ENOUGH * shape[0] * shape[1]


class DeviceField:
    """Dense field on a device."""

    def __init__(self, rows: Rows | AlignedRows, dtype: type, device: torch.device) -> None:
        everyone = np.arange(rows.shape[0])
        self.values = torch.from_numpy(rows.dense(everyone, dtype)).to(device)

    def cut(self, cells: Tensor) -> Tensor:
        """Return the rows of the given cells."""
        return self.values[cells.to(self.values.device, non_blocking=True)]


class DeviceCounts:
    """Nonzero counts on a device.

    ``position`` is the row of each cell, -1 for a cell without a row.
    """

    def __init__(self, matrix: Any, position: np.ndarray, device: torch.device) -> None:
        self.n_columns = matrix.shape[1]
        # on the host, so that the size of a minibatch is known without waiting for the device
        pointers = matrix.indptr.astype(np.int64)
        self.starts = torch.from_numpy(pointers[position])
        # position -1, a cell without a row, has the appended length 0
        self.lengths = torch.from_numpy(np.append(np.diff(pointers), 0)[position])
        self.columns = _tensor(matrix.indices).to(device)
        self.values = _tensor(matrix.data).to(device)

    def cut(self, cells: Tensor) -> Tensor:
        """Return the cells' counts, dense, float32."""
        starts, lengths = self.starts[cells], self.lengths[cells]
        device = self.values.device
        ends = lengths.cumsum(0)
        total = int(ends[-1])
        offsets = torch.stack([starts - ends + lengths, lengths])
        first, lengths = offsets.to(device, non_blocking=True)
        entries = first.repeat_interleave(lengths, output_size=total)
        entries += torch.arange(total, device=device)
        row = torch.arange(len(cells), device=device).repeat_interleave(lengths, output_size=total)
        dense = torch.zeros(len(cells), self.n_columns, device=device)
        dense.view(-1)[row * self.n_columns + self.columns[entries]] = self.values[entries].float()
        return dense


def _tensor(values: np.ndarray) -> Tensor:
    with warnings.catch_warnings():
        # a memory-mapped file is only read
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(values)


def resident(
    rows: Rows | AlignedRows, dtype: type, device: torch.device
) -> DeviceField | DeviceCounts:
    """Return a field on a device: its nonzero counts if it is sparse."""
    # read once, because it copies an unsorted matrix
    if (matrix := rows.compressed) is not None:
        return DeviceCounts(matrix, rows.position, device)
    return DeviceField(rows, dtype, device)


def fits(dataset: CellDataset, device: torch.device) -> bool:
    """Return True if a data set can stay on a GPU, where it may take half of the free memory."""
    if device.type != "cuda" or dataset.in_file:
        return False
    free, _ = torch.cuda.mem_get_info(device)
    n_bytes = (rows.n_bytes(dataset.type_of(key)) for key, rows in dataset.fields.items())
    return sum(n_bytes) <= SHARE_OF_MEMORY * free


class ResidentCells(Dataset[dict[str, "Tensor"]]):
    """Minibatches of the cells of a data set, cut on the model's device."""

    def __init__(self, dataset: CellDataset, device: torch.device) -> None:
        self.cells = torch.from_numpy(np.ascontiguousarray(dataset.indices)).long()
        self.parts = {
            key: resident(rows, dataset.type_of(key), device)
            for key, rows in dataset.fields.items()
        }

    def __len__(self) -> int:
        return len(self.cells)

    def __getitem__(self, indexes: Tensor | list[int]) -> dict[str, Tensor]:
        """Return the fields of the cells at some positions, each ``(n_cells, n_columns)``."""
        cells = self.cells[indexes]
        return {key: part.cut(cells) for key, part in self.parts.items()}


class Shuffled(Sampler["Tensor"]):
    """Positions of the cells of each minibatch, in the random order of scvi-tools' own loader."""

    def __init__(self, n_cells: int, batch_size: int, drop_last: bool) -> None:
        self.n_cells, self.batch_size, self.drop_last = n_cells, batch_size, drop_last

    def __len__(self) -> int:
        whole, rest = divmod(self.n_cells, self.batch_size)
        return whole + (rest > 0 and not self.drop_last)

    def __iter__(self) -> Iterator[Tensor]:
        # a new generator, seeded from the global one, as in PyTorch's sampler
        generator = torch.Generator().manual_seed(int(torch.empty((), dtype=torch.int64).random_()))
        order = torch.randperm(self.n_cells, generator=generator)
        yield from order.split(self.batch_size)[: len(self)]


class InOrder(SequentialSampler):
    """Positions of the cells of each minibatch, in the order of the cells.

    To overfit, Lightning replaces every sampler of another class, and would pass single cells.
    """

    def __init__(self, n_cells: int, batch_size: int) -> None:
        super().__init__(range(n_cells))
        self.batch_size = batch_size

    def __len__(self) -> int:
        return math.ceil(len(self.data_source) / self.batch_size)

    def __iter__(self) -> Iterator[Any]:
        cells = np.arange(len(self.data_source))
        yield from np.split(cells, range(self.batch_size, len(cells), self.batch_size))


def in_order(cells: CellDataset, batch_size: int) -> DataLoader[Any]:
    """Return a loader of the same minibatches in every epoch."""
    return DataLoader(cells, sampler=InOrder(len(cells), batch_size), batch_size=None)


def shuffled(cells: ResidentCells, batch_size: int, drop_last: bool) -> DataLoader[Any]:
    """Return a loader of minibatches in the order of scvi-tools' own loader."""
    # indices are tensors, which is faster than Python integers one by one
    sampler = Shuffled(len(cells), batch_size, drop_last)
    return DataLoader(cells, sampler=sampler, batch_size=None)
