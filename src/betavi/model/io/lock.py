"""A lock between processes and threads that ends with its process.

Where the system has ``flock``, the lock is on an open file, so a killed process holds no lock, also
if its file stays. Elsewhere the file itself is the lock. Windows removes it with its process.
"""

from __future__ import annotations

import errno
import os
import sys
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

if sys.platform != "win32":
    import fcntl

HAS_FLOCK = sys.platform != "win32"

NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL}
"""Errors of file systems without locks. There, nothing is locked."""

WAIT, STEP = 60.0, 0.02
"""Seconds to wait for a file that another process holds, in total and between tries."""


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Wait until no other process or thread holds the lock of a file, and hold it."""
    handle = _locked_file(path) if HAS_FLOCK else _new_file(path)
    try:
        yield
    finally:
        # first the name, so that nobody can open a file whose lock is free and remove a new one
        with suppress(OSError):
            path.unlink()
        _release(handle)


def _locked_file(path: Path) -> int:
    """Return an open file with a lock. The name may have changed while another process held it."""
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        try:
            _wait(handle)
            if _has_name(handle, path):
                return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)


def _wait(handle: int) -> None:
    if sys.platform != "win32":
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise


def _release(handle: int) -> None:
    """Free a lock, also if a process that was forked meanwhile has the same open file."""
    if sys.platform != "win32":
        with suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_UN)
    os.close(handle)


def _has_name(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False


def _new_file(path: Path) -> int:
    """Return an open file that nobody else could make, after a wait."""
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_TEMPORARY", 0)
    end = time.monotonic() + WAIT
    while True:
        try:
            return os.open(path, flags, 0o666)
        except (FileExistsError, PermissionError) as error:
            if time.monotonic() > end:
                raise TimeoutError(
                    f"{path} exists, because another process saves into this folder or was killed. "
                    "If no process saves there, remove this file, and save again."
                ) from error
        time.sleep(STEP)
