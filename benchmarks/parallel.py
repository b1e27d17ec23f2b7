"""Parallel measurements, one on each core, for benchmarks that do not measure time."""

from __future__ import annotations

import os
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import TYPE_CHECKING, Any

from benchmarks.peers import quietly

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence


def measured(function: Callable[..., Any], tasks: Sequence[tuple[Any, ...]]) -> Iterator[Any]:
    """Yield the result of a function for each task, in the order of the tasks."""
    # a forked process hangs after torch has run, and more threads than cores slow each other down
    start = {"mp_context": get_context("spawn"), "initializer": quietly, "initargs": (1,)}
    with ProcessPoolExecutor(os.cpu_count(), **start) as pool:
        yield from pool.map(function, *zip(*tasks, strict=True))
