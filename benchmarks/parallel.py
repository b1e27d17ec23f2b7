"""Measurements that take no time of their own, one on each core."""

from __future__ import annotations

import logging
import os
import warnings
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence


def quietly() -> None:
    """Let a process be silent and use one thread: more than there are cores slow each other."""
    logging.disable(logging.INFO)
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)


def measured(function: Callable[..., Any], tasks: Sequence[tuple[Any, ...]]) -> Iterator[Any]:
    """Yield what a function returns of each task, in their order."""
    # a copy of a process in which torch has run would hang
    with ProcessPoolExecutor(
        os.cpu_count(), mp_context=get_context("spawn"), initializer=quietly
    ) as pool:
        yield from pool.map(function, *zip(*tasks, strict=True))
