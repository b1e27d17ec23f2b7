"""Random minibatches of cells whose counts are in a file."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from betavi import _blocks

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from betavi.data.minibatches import CellDataset

SMALLEST_BLOCK = 64
"""Fewest consecutive cells that are read together. Not tuned."""

BLOCKS_AT_ONCE = 32
"""Fewest blocks whose cells are mixed. Not tuned."""

BLOCKS_OF_SPLIT = 1000
"""Number of blocks from which held-out cells are drawn, if they have fewer than 64 cells."""


def blocks_in_random_order(cells: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """Return sorted cells, ``(n_cells,)``, in blocks of consecutive cells, which are shuffled."""
    blocks = np.split(cells, range(size, len(cells), size))
    return np.concatenate([blocks[number] for number in rng.permutation(len(blocks))])


def split_order(n_cells: int, rng: np.random.Generator) -> np.ndarray:
    """Return all cells in an order whose first cells are a random sample of blocks."""
    size = min(SMALLEST_BLOCK, max(1, n_cells // BLOCKS_OF_SPLIT))
    return blocks_in_random_order(np.arange(n_cells), size, rng)


class FileMinibatches:
    """Minibatches in random order, read in blocks of consecutive cells.

    In every epoch, the blocks are shuffled, and then the cells of some tens of blocks, which
    are in memory together. To read the next blocks in a thread was not faster on a CPU.

    Parameters
    ----------
    dataset
        Cells to read. Their order has no effect.
    batch_size
        Number of cells in a minibatch.
    drop_last
        Leave out the last minibatch if it is smaller.
    rank, n_processes
        Number of this process, from 0, and number of processes. Each process reads its own blocks. Together, their
        minibatches are those of one process with ``n_processes * batch_size`` cells.
    seed
        Seed of the order of the blocks, which all processes share. None draws a new order from torch's generator.
    """

    def __init__(
        self,
        dataset: CellDataset,
        batch_size: int,
        drop_last: bool,
        rank: int = 0,
        n_processes: int = 1,
        seed: int | None = None,
    ) -> None:
        self.dataset, self.batch_size = dataset, batch_size
        self.rank, self.n_processes = rank, n_processes
        self.seed, self.n_epochs = seed, 0
        n_cells, together = len(dataset), n_processes * batch_size
        self.n_cells = n_cells - n_cells % together if drop_last else n_cells
        self.by_cell = np.argsort(dataset.indices, kind="stable")

    def __len__(self) -> int:
        return -(-self.n_cells // (self.n_processes * self.batch_size))

    @property
    def block_size(self) -> int:
        """Number of cells in a block: what the files store together, within bounds."""
        chunks = [rows.chunk_rows for rows in self.dataset.fields.values() if rows.in_file]
        largest = max(SMALLEST_BLOCK, self.n_mixed // BLOCKS_AT_ONCE)
        return min(max([SMALLEST_BLOCK, *chunks]), largest)

    @property
    def n_mixed(self) -> int:
        """Number of cells that are in memory at once, a multiple of the batch size."""
        per_cell = sum(rows.per_row for rows in self.dataset.fields.values())
        n_cells = max(_blocks.FILE_ENTRIES // per_cell, BLOCKS_AT_ONCE * SMALLEST_BLOCK)
        return self.batch_size * max(1, n_cells // self.batch_size)

    def _share(self, order: np.ndarray) -> np.ndarray:
        """Return the part of the cells that this process reads."""
        whole, rest = divmod(self.n_cells, self.n_processes * self.batch_size)
        last = np.array_split(np.arange(rest), self.n_processes)
        ends = np.cumsum([whole * self.batch_size + len(part) for part in last])
        return np.split(order[: self.n_cells], ends[:-1])[self.rank]

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        seed = self.seed
        if seed is None:
            seed = int(torch.empty((), dtype=torch.int64).random_())
        rng = np.random.default_rng([seed, self.n_epochs])
        self.n_epochs += 1
        order = self._share(blocks_in_random_order(self.by_cell, self.block_size, rng))
        for start in range(0, len(order), self.n_mixed):
            cells = self.dataset.in_memory(rng.permutation(order[start : start + self.n_mixed]))
            for first in range(0, len(cells), self.batch_size):
                yield cells[slice(first, first + self.batch_size)]
