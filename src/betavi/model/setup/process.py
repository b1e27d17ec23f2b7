"""Forked processes, in which PyTorch's threads do not exist."""

from __future__ import annotations

import os

import torch

from betavi.model.setup.messages import warn

_IMPORTED_IN = [os.getpid()]
"""Process that imported betavi, or the forked process that was prepared last."""


def prepare_fork() -> None:
    """In a forked process, let PyTorch use one thread, because it would wait endlessly for the others.

    A forked process has none of the threads of its parent, but the OpenMP runtime counts on them.
    """
    if os.getpid() == _IMPORTED_IN[0]:
        return
    _IMPORTED_IN[0] = os.getpid()
    if torch.get_num_threads() > 1:
        torch.set_num_threads(1)
        warn(
            "This process was forked, so PyTorch's threads do not exist in it. It uses one thread. "
            "To use more threads, start the process with multiprocessing.get_context('spawn')."
        )
