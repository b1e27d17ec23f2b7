"""Agreement between the processes of a training run. Each call is needed in every process."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import distributed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lightning.pytorch import Trainer
    from torch import Tensor


@contextmanager
def seeded_alike(trainer: Trainer) -> Iterator[None]:
    """Draw the same random numbers in all processes inside a ``with`` block, but not after it."""
    if trainer.world_size == 1:
        yield
        return
    seed = trainer.strategy.broadcast(int(torch.randint(2**31, ())))
    torch.manual_seed(seed)
    yield
    torch.manual_seed(seed + 1 + trainer.global_rank)


def gathered(trainer: Trainer, value: Any) -> list[Any]:
    """Return the values of all processes. A tensor must be on the CPU."""
    if trainer.world_size == 1:
        return [value]
    values: list[Any] = [None] * trainer.world_size
    distributed.all_gather_object(values, value)
    return values


def summed(trainer: Trainer, values: Tensor) -> Tensor:
    """Return the sum of a tensor over processes."""
    if trainer.world_size == 1:
        return values
    total: Tensor = trainer.strategy.reduce(values.detach().clone(), reduce_op="sum")
    return total


def cell_mean(trainer: Trainer, values: Tensor) -> Tensor:
    """Return the mean of ``(n_cells, ...)`` over the cells of all processes, ``(...)``."""
    sums, n_cells = values.sum(dim=0), values.new_tensor([len(values)])
    total = summed(trainer, torch.cat([sums.reshape(-1), n_cells]))
    return (total[:-1] / total[-1]).view(sums.shape)


def mean_gradient(trainer: Trainer, parameter: Tensor, gradient: Tensor | None) -> Tensor | None:
    """Return the mean of a gradient over processes. None is zero, if another process has one."""
    if trainer.world_size == 1:
        return gradient
    own = torch.zeros_like(parameter) if gradient is None else gradient
    return summed(trainer, own) / trainer.world_size
