"""Division of the cells between the processes of a training run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scvi import settings
from torch.utils.data import DataLoader, Dataset, Sampler

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor


class Shares(Sampler["Tensor"]):
    """Positions of the cells in each training minibatch of one process.

    All processes draw the same order of the cells, from the same seed. They divide each group of
    ``n_processes * batch_size`` cells, so that together they see the minibatches of one process with
    this batch size.

    Parameters
    ----------
    n_cells
        Number of training cells.
    batch_size
        Number of cells in a minibatch of one process.
    drop_last
        Leave out the last group of cells if it is smaller than the others.
    rank, n_processes
        Number of this process, from 0, and number of processes.
    seed
        Seed of the order.

    Examples
    --------
    >>> from betavi.data.shares import Shares
    >>> shares = [Shares(10, 2, False, rank, n_processes=2, seed=0) for rank in range(2)]
    >>> [[len(cells) for cells in share] for share in shares]
    [[2, 2, 1], [2, 2, 1]]
    """

    def __init__(
        self,
        n_cells: int,
        batch_size: int,
        drop_last: bool,
        rank: int,
        n_processes: int,
        seed: int,
    ) -> None:
        self.n_cells, self.drop_last = n_cells, drop_last
        self.rank, self.n_processes = rank, n_processes
        self.together = n_processes * batch_size
        self.seed, self.n_epochs = seed, 0

    def __len__(self) -> int:
        whole, rest = divmod(self.n_cells, self.together)
        return whole + (rest > 0 and not self.drop_last)

    def __iter__(self) -> Iterator[Tensor]:
        generator = torch.Generator().manual_seed(self.seed + self.n_epochs)
        self.n_epochs += 1
        order = torch.randperm(self.n_cells, generator=generator)
        for group in order.split(self.together)[: len(self)]:
            yield group.tensor_split(self.n_processes)[self.rank]


def in_shares(n_cells: int, batch_size: int, rank: int, n_processes: int) -> list[np.ndarray]:
    """Return positions of the held-out cells in each minibatch of one process.

    Every cell is in one minibatch of one process. All processes have the same number of minibatches.
    """
    n_minibatches = -(-n_cells // (n_processes * batch_size))
    share = np.array_split(np.arange(n_cells), n_processes)[rank]
    return np.array_split(share, n_minibatches)


def loader_of_share(cells: Dataset[Any], minibatches: Any, **options: Any) -> DataLoader[Any]:
    """Return a loader of minibatches whose positions are given."""
    usual = {
        "num_workers": settings.dl_num_workers,
        "persistent_workers": settings.dl_persistent_workers,
    }
    return DataLoader(cells, sampler=minibatches, batch_size=None, **usual | options)
