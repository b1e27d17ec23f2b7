"""Minibatches cut from counts that stay where the model is."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from betavi.kernels import compiled, rows_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from betavi.data.minibatches import CellDataset
    from betavi.data.rows import AlignedRows, Rows

SHARE_OF_MEMORY = 0.5
"""Share of a device's free memory that counts may take; a bound on memory."""

SPARSE_ENOUGH = 0.5
"""Share of nonzeros up to which skipping zeros is faster than a dense product. About; no benchmark tunes it."""


def stays_compressed(device: torch.device, n_counts: int, shape: tuple[int, ...]) -> bool:
    """Return True if a model on a device reads these counts as CSR tensors."""
    may_be = device.type == "cpu" and compiled is not None
    return may_be and n_counts < SPARSE_ENOUGH * shape[0] * shape[1]


class Slices:
    """A field that is cut on the CPU as the object holds it."""

    def __init__(self, rows: Rows | AlignedRows, dtype: type) -> None:
        self.rows, self.dtype = rows, dtype

    def cut(self, cells: Tensor) -> Tensor:
        """Return the rows of some cells."""
        return torch.from_numpy(np.ascontiguousarray(self.rows.dense(cells.numpy(), self.dtype)))


class Table:
    """A dense field on a device."""

    def __init__(self, rows: Rows | AlignedRows, dtype: type, device: torch.device) -> None:
        everyone = np.arange(rows.shape[0])
        self.values = torch.from_numpy(rows.dense(everyone, dtype)).to(device)

    def cut(self, cells: Tensor) -> Tensor:
        """Return the rows of some cells."""
        return self.values[cells.to(self.values.device, non_blocking=True)]


class Counts:
    """Nonzero counts on a device, of a CSR matrix that is not copied on a CPU.

    ``position`` is the row of each cell, -1 for a cell without a row.
    """

    def __init__(self, matrix: Any, position: np.ndarray, device: torch.device) -> None:
        self.n_columns = matrix.shape[1]
        # on the host, so that the size of a minibatch is known without waiting for the device; a
        # cell without a row, at -1, has the empty one after the last
        pointers = matrix.indptr.astype(np.int64)
        self.starts = torch.from_numpy(pointers[position])
        self.lengths = torch.from_numpy(np.append(np.diff(pointers), 0)[position])
        self.columns = _tensor(matrix.indices).to(device)
        self.values = _tensor(matrix.data).to(device)
        self.stays_compressed = stays_compressed(device, matrix.nnz, matrix.shape)

    def cut(self, cells: Tensor) -> Tensor:
        """Return the rows of some cells in single precision: compressed, or with their zeros."""
        starts, lengths = self.starts[cells], self.lengths[cells]
        if self.stays_compressed:
            return rows_of(starts, lengths, self.columns, self.values, self.n_columns)
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
        # of a file mapped to memory, which is only read
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(values)


def resident(
    rows: Rows | AlignedRows, dtype: type, device: torch.device
) -> Slices | Table | Counts:
    """Return a field in the form that suits a device."""
    # read once: an unsorted matrix is copied for it
    if (matrix := rows.compressed) is not None:
        return Counts(matrix, rows.position, device)
    return Slices(rows, dtype) if device.type == "cpu" else Table(rows, dtype, device)


def fits(dataset: CellDataset, device: torch.device) -> bool:
    """Return True if fields are in memory and, on a GPU, take at most half of what is free there."""
    fields = dataset.fields.values()
    if any(rows.in_file for rows in fields):
        return False
    if device.type != "cuda":
        return device.type == "cpu"
    free, _ = torch.cuda.mem_get_info(device)
    n_bytes = (rows.n_bytes(dataset.type_of(key)) for key, rows in dataset.fields.items())
    return sum(n_bytes) <= SHARE_OF_MEMORY * free


class ResidentCells(Dataset[dict[str, "Tensor"]]):
    """Minibatches of the cells of a data set that :func:`fits`, cut on the device of the model."""

    def __init__(self, dataset: CellDataset, device: torch.device) -> None:
        self.cells = torch.from_numpy(np.ascontiguousarray(dataset.indices)).long()
        self.parts = {
            key: resident(rows, dataset.type_of(key), device)
            for key, rows in dataset.fields.items()
        }

    def __len__(self) -> int:
        """Return the number of cells."""
        return len(self.cells)

    def __getitem__(self, indexes: Tensor | list[int]) -> dict[str, Tensor]:
        """Return the fields of the cells at some positions, each ``(n_cells, n_columns)``."""
        cells = self.cells[indexes]
        return {key: part.cut(cells) for key, part in self.parts.items()}


class Shuffled(Sampler["Tensor"]):
    """Positions of the cells of each minibatch, drawn as scvi-tools' own loader draws them."""

    def __init__(self, n_cells: int, batch_size: int, drop_last: bool) -> None:
        self.n_cells, self.batch_size, self.drop_last = n_cells, batch_size, drop_last

    def __len__(self) -> int:
        """Return the number of minibatches."""
        whole, rest = divmod(self.n_cells, self.batch_size)
        return whole + (rest > 0 and not self.drop_last)

    def __iter__(self) -> Iterator[Tensor]:
        """Yield positions in a new order, minibatch by minibatch."""
        # a generator of its own, seeded by the global one, as PyTorch's sampler has it
        generator = torch.Generator().manual_seed(int(torch.empty((), dtype=torch.int64).random_()))
        order = torch.randperm(self.n_cells, generator=generator)
        yield from order.split(self.batch_size)[: len(self)]


def shuffled(cells: ResidentCells, batch_size: int, drop_last: bool) -> DataLoader[Any]:
    """Return minibatches in the order of scvi-tools' own loader."""
    # not as Python's numbers, one by one
    sampler = Shuffled(len(cells), batch_size, drop_last)
    return DataLoader(cells, sampler=sampler, batch_size=None)
