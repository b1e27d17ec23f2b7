"""Files and folders that replace others in one step, whatever kills the process.

A new file is written beside its target under a name that no other process uses, ``.NAME.betavi-new-PID-...``.
When it is complete it takes the target's name. A file replaces a file in one step everywhere. Two
folders swap names in one step on Linux. Elsewhere the old folder is renamed first, to
``...betavi-old-...``, and :func:`tidy` gives it its name back if the process was killed right then.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import re
import secrets
import sys
import zlib
from contextlib import suppress
from shutil import copymode, rmtree
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

HOST = f"{zlib.crc32(platform.node().encode()):08x}"
"""Short name of this machine: process numbers of other machines mean nothing here."""

AT_FDCWD, RENAME_EXCHANGE = -100, 2
"""Constants of the system call ``renameat2``."""

TAKEN = (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR)
"""Errors of a folder that is to have the name of another one."""

_in_use: set[Path] = set()


def reserve(target: Path, ending: str) -> Path:
    """Return a name beside a target, with no links in its path, for this process alone."""
    # mudata tells formats apart by the ending
    token = secrets.token_hex(4)
    new = target.with_name(f".{target.name}.betavi-new-{os.getpid()}-{token}-{HOST}{ending}")
    _in_use.add(new)
    return new


def discard(new: Path) -> None:
    """Remove a reserved file or folder, if it is still there."""
    _in_use.discard(new)
    remove(new)


def take_place(new: Path, target: Path) -> None:
    """Let a complete file or folder take the name of another, which is removed.

    If several processes do so, the last one wins.
    """
    if not new.is_dir():
        if target.exists():
            copymode(target, new)
        new.replace(target)
        return
    old = _renamed(new, "old")
    while not _swap(new, target):
        try:
            with suppress(FileNotFoundError):
                target.rename(old)
            new.rename(target)
            return
        except OSError as error:
            # another process was faster
            if error.errno not in TAKEN:
                raise
        finally:
            _put_back(old, target)


def tidy(target: Path) -> None:
    """Remove what killed processes of this machine left beside a target, and restore the target."""
    start = f".{target.name}.betavi-"
    for path in [path for path in target.parent.iterdir() if path.name.startswith(start)]:
        found = re.fullmatch(rf"(new|old|gone)-(\d+)-\w+-{HOST}", path.stem.removeprefix(start))
        if found is None or _is_in_use(path, int(found[2])):
            continue
        if found[1] == "old":
            _put_back(path, target)
        else:
            remove(path)


def remove(path: Path) -> None:
    """Remove a file or a folder; leave what cannot be removed, such as what another process removes."""
    if path.is_dir() and not path.is_symlink():
        rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


def _swap(one: Path, other: Path) -> bool:
    """Let two folders swap names in one step, where both exist and the system can do it."""
    if sys.platform != "linux":
        return False
    swap = getattr(ctypes.CDLL(None), "renameat2", None)
    names = os.fsencode(one), os.fsencode(other)
    return swap is not None and not swap(AT_FDCWD, names[0], AT_FDCWD, names[1], RENAME_EXCHANGE)


def _put_back(old: Path, target: Path) -> None:
    """Give a folder its name back, or remove it if another one has taken its place."""
    try:
        old.rename(target)
    except FileNotFoundError:
        return
    except OSError as error:
        if error.errno not in TAKEN:
            raise
        # under a name from which a half removed folder is never restored
        gone = _renamed(old, "gone")
        with suppress(FileNotFoundError):
            old.rename(gone)
        remove(gone)


def _renamed(path: Path, kind: str) -> Path:
    start, _, rest = path.name.rpartition(".betavi-")
    return path.with_name(f"{start}.betavi-{kind}-{rest.partition('-')[2]}")


def _is_in_use(path: Path, pid: int) -> bool:
    if pid == os.getpid():
        return _renamed(path, "new") in _in_use
    # on Windows os.kill() with any signal would end the process
    if sys.platform == "win32":
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
