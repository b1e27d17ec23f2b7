"""Compiled loops on PyTorch's own threads."""

from __future__ import annotations

import ctypes
import os
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Callable

Task = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


@cache
def _team() -> ctypes.CDLL | None:
    """Return the OpenMP runtime that PyTorch loaded, if other code can call it."""
    shipped = sorted((Path(torch.__file__).parent / "lib").glob("libgomp*"))
    try:
        runtime = ctypes.CDLL(str(shipped[0]) if shipped else None)
        runtime.GOMP_parallel.argtypes = [Task, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
        runtime.GOMP_parallel.restype = None
    except (AttributeError, OSError, TypeError):
        return None
    return runtime


@cache
def _pool(n_threads: int, _process: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(n_threads, thread_name_prefix="betavi")


def in_parts(loop: Callable[..., None], length: int, n_parts: int, *arguments: Any) -> None:
    """Call ``loop(start, stop, *arguments)`` on consecutive parts of a range, in parallel.

    The range starts at 0 and has at least 2 parts. The loop must release the interpreter. PyTorch's
    OpenMP threads do the work, because they keep their cores busy for milliseconds while idle.
    """
    bounds = [length * part // n_parts for part in range(n_parts + 1)]
    parts = list(pairwise(bounds))
    if (team := _team()) is not None:
        _by_team(team, loop, parts, arguments)
        return
    # a forked process does not inherit its parent's threads
    pool = _pool(n_parts - 1, os.getpid())
    others = [pool.submit(loop, *part, *arguments) for part in parts[1:]]
    loop(*parts[0], *arguments)
    for other in others:
        other.result()


def _by_team(
    team: ctypes.CDLL, loop: Callable[..., None], parts: list[tuple[int, int]], arguments: Any
) -> None:
    failures: list[BaseException] = []
    done: list[tuple[int, int]] = []

    def task(_: Any) -> None:
        try:
            # there may be fewer threads than parts
            for part in parts[team.omp_get_thread_num() :: team.omp_get_num_threads()]:
                loop(*part, *arguments)
                done.append(part)
        except BaseException as failure:  # exceptions cannot pass through C
            failures.append(failure)

    team.GOMP_parallel(Task(task), None, len(parts), 0)
    if failures:
        raise failures[0]
    # ctypes prints Ctrl-C in a callback but does not raise it
    if len(done) < len(parts):
        raise KeyboardInterrupt
