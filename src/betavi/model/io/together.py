"""Several files of a folder, replaced together even if the process is killed.

1. Each new file is written beside its target under a unique name, and forced to the disk.
2. A marker, ``PREFIXmodel.saving``, takes its name in one step. It lists the new files.
3. Each new file takes the name of its target. Then the marker is removed.

A process that is killed before step 2 leaves the old files. A process that is killed later leaves
the new files: with a marker, a reader takes the listed file where it still exists. The next save
finishes the replacement. Other files of the folder do not change.

Steps 2 and 3 are under a lock, so two saves do not mix. Readers need no lock.
"""

from __future__ import annotations

import errno
import json
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from betavi.model.io.lock import locked
from betavi.model.io.replace import discard, reserve, take_place, tidy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from contextlib import AbstractContextManager

MARKER = "model.saving"
"""Name of the marker, after the prefix of the files."""

FILES = ("model.safetensors", "model.json", "model.pt", "adata.h5ad", "mdata.h5mu")
"""Names of files that a save writes."""

NAMES = (*FILES, MARKER)
"""Names of files that an earlier save may have left unfinished."""

KIND = "saving"
"""Part of the names of new files. Other parts of betavi remove files of other kinds only."""

NO_FOLDERS = {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP}
"""Errors of file systems that cannot force the names of a folder's files to the disk."""


def write_together(
    folder: Path, prefix: str, writers: Mapping[str, Callable[[Path], object]]
) -> None:
    """Write files, by name without the prefix. ``writers`` take the path to write to.

    If a writer fails, the old files stay as they are.
    """
    marker = folder / f"{prefix}{MARKER}"
    with _lock(marker):
        _finish(marker)
        for name in NAMES:
            tidy(folder / f"{prefix}{name}", KIND)
    new = {path: _reserved(path) for path in (folder / f"{prefix}{name}" for name in writers)}
    listed = _reserved(marker)
    try:
        for path, write in zip(new.values(), writers.values(), strict=True):
            write(path)
            _to_disk(path)
        listed.write_text(json.dumps({target.name: path.name for target, path in new.items()}))
        _to_disk(listed)
        with _lock(marker):
            _commit(listed, marker)
    except BaseException:
        # an interruption just after the marker took its name changes nothing
        if not _is_listed(marker, new.values()):
            for path in (*new.values(), listed):
                discard(path)
        raise


def _commit(listed: Path, marker: Path) -> None:
    """Let a list of new files become the marker, and replace the old files."""
    # another process may have been killed since
    _finish(marker)
    _to_disk(marker.parent)
    take_place(listed, marker)
    discard(listed)
    _to_disk(marker.parent)
    _finish(marker)


def _lock(marker: Path) -> AbstractContextManager[None]:
    return locked(marker.with_name(f".{marker.name}.lock"))


def _reserved(target: Path) -> Path:
    return reserve(target, target.suffix, KIND)


def _is_listed(marker: Path, new: Iterable[Path]) -> bool:
    """Return whether the marker is that of some new files, whose names are unique."""
    try:
        content = marker.read_bytes()
    except FileNotFoundError:
        return False
    return any(path.name.encode() in content for path in new)


def current(folder: Path, name: str, prefix: str) -> Path:
    """Return the path that a reader opens for a file."""
    target = folder / f"{prefix}{name}"
    new = _listed(folder / f"{prefix}{MARKER}").get(target.name)
    return new if new is not None and new.exists() else target


def stamp(folder: Path, prefix: str) -> list[tuple[int, int] | None]:
    """Return a value that changes when a save replaces files."""
    found: list[tuple[int, int] | None] = []
    for name in NAMES:
        try:
            status = (folder / f"{prefix}{name}").stat()
        except OSError:
            found.append(None)
        else:
            found.append((status.st_ino, status.st_mtime_ns))
    return found


def _finish(marker: Path) -> None:
    """Let the new files that a marker lists take the names of their targets."""
    if not marker.exists():
        return
    for name, new in _listed(marker).items():
        # a killed process may have replaced some files
        with suppress(FileNotFoundError):
            take_place(new, marker.with_name(name))
        discard(new)
    _to_disk(marker.parent)
    marker.unlink(missing_ok=True)


def _listed(marker: Path) -> dict[str, Path]:
    """Return the new files that a marker lists, by the names of their targets."""
    try:
        content = marker.read_bytes()
    except FileNotFoundError:
        return {}
    try:
        names = dict(json.loads(content))
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(_damaged(marker)) from error
    if not all(_is_ours(marker, name, new) for name, new in names.items()):
        raise ValueError(_damaged(marker))
    return {name: marker.with_name(new) for name, new in names.items()}


def _is_ours(marker: Path, name: str, new: object) -> bool:
    """Return whether a save writes these names. A stranger's marker may name any file."""
    prefix = marker.name.removesuffix(MARKER)
    if name not in {f"{prefix}{known}" for known in FILES} or not isinstance(new, str):
        return False
    if not new.startswith(f".{name}.betavi-{KIND}-") or Path(new).name != new or "\0" in new:
        return False
    path = marker.with_name(new)
    return not path.is_symlink() and not path.is_dir()


def _damaged(marker: Path) -> str:
    return (
        f"{marker} is damaged. It lists files of a save that was interrupted. Remove this file to "
        "open the files of the earlier save."
    )


def _to_disk(path: Path) -> None:
    """Wait until the disk has a file, or the names of a folder's files."""
    # Windows opens no folders
    if sys.platform == "win32" and path.is_dir():
        return
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    except OSError as error:
        if not path.is_dir() or error.errno not in NO_FOLDERS:
            raise
    finally:
        os.close(handle)
