"""Measurements that take no time of their own, one on each core."""

from __future__ import annotations

import os
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import TYPE_CHECKING, Any

from benchmarks.peers import quietly

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence


def measured(function: Callable[..., Any], tasks: Sequence[tuple[Any, ...]]) -> Iterator[Any]:
    """Yield what a function returns of each task, in their order."""
    # a copy of a process in which torch has run would hang, and more threads than cores slow each other
    start = {"mp_context": get_context("spawn"), "initializer": quietly, "initargs": (1,)}
    with ProcessPoolExecutor(os.cpu_count(), **start) as pool:
        yield from pool.map(function, *zip(*tasks, strict=True))
