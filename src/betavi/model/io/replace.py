"""Replacement of files and folders in one step, even if the process is killed.

A new file is written beside its target under a unique name, ``.NAME.betavi-new-PID-...``. When it
is complete, it takes the target's name. Replacing a file is one step on every system. On Linux, two
folders swap names in one step. On other systems, the old folder is first renamed to
``...betavi-old-...``. If the process is killed at this moment, :func:`tidy` later restores the
name.
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
"""Short name of this machine, because process numbers are only valid on their own machine."""

AT_FDCWD, RENAME_EXCHANGE = -100, 2
"""Constants of the system call ``renameat2``."""

NAME_TAKEN = (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR)
"""Errors of renaming a folder to a name that is in use."""

_reserved: set[Path] = set()


def reserve(target: Path, ending: str, kind: str = "new") -> Path:
    """Return a unique path beside a target. ``target`` must contain no links."""
    # mudata recognises formats by the ending
    token = secrets.token_hex(4)
    new = target.with_name(f".{target.name}.betavi-{kind}-{os.getpid()}-{token}-{HOST}{ending}")
    _reserved.add(new)
    return new


def discard(new: Path) -> None:
    """Remove a reserved file or folder, if it still exists."""
    _reserved.discard(new)
    remove(new)


def take_place(new: Path, target: Path) -> None:
    """Replace ``target`` by a complete file or folder. The last of several processes wins."""
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
            if error.errno not in NAME_TAKEN:
                raise
        finally:
            _put_back(old, target)


def tidy(target: Path, kinds: str = "new|old|gone") -> None:
    """Remove what killed processes of this machine left beside a target. Restore the target."""
    start = f".{target.name}.betavi-"
    for path in [path for path in target.parent.iterdir() if path.name.startswith(start)]:
        found = re.fullmatch(rf"({kinds})-(\d+)-\w+-{HOST}", path.stem.removeprefix(start))
        if found is None or _is_in_use(path, int(found[2])):
            continue
        if found[1] == "old":
            _put_back(path, target)
        else:
            remove(path)


def remove(path: Path) -> None:
    """Remove a file or a folder.

    Ignores failures, because another process may remove the same path.
    """
    if path.is_dir() and not path.is_symlink():
        rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


def _swap(one: Path, other: Path) -> bool:
    """Swap the names of two folders in one step. Returns False if this is not possible."""
    if sys.platform != "linux":
        return False
    swap = getattr(ctypes.CDLL(None), "renameat2", None)
    names = os.fsencode(one), os.fsencode(other)
    return swap is not None and not swap(AT_FDCWD, names[0], AT_FDCWD, names[1], RENAME_EXCHANGE)


def _put_back(old: Path, target: Path) -> None:
    """Restore the name of a folder, or remove the folder if its name is in use."""
    try:
        old.rename(target)
    except FileNotFoundError:
        return
    except OSError as error:
        if error.errno not in NAME_TAKEN:
            raise
        # tidy() never restores a folder from this name, even if its removal is interrupted
        gone = _renamed(old, "gone")
        with suppress(FileNotFoundError):
            old.rename(gone)
        remove(gone)


def _renamed(path: Path, kind: str) -> Path:
    start, _, rest = path.name.rpartition(".betavi-")
    return path.with_name(f"{start}.betavi-{kind}-{rest.partition('-')[2]}")


def _is_in_use(path: Path, pid: int) -> bool:
    if pid == os.getpid():
        return not _reserved.isdisjoint({path, _renamed(path, "new")})
    # on Windows, os.kill() with any signal would end the process
    if sys.platform == "win32":
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
