"""Several files of a folder, replaced together even if the process is killed.

1. Each new file is written beside its target under a unique name, and forced to the disk.
2. A marker, ``PREFIXmodel.saving``, takes its name in one step. It lists the new files.
3. Each new file takes the name of its target. Then the marker is removed.

A process that is killed before step 2 leaves the old files. A process that is killed later leaves
the new files: with a marker, a reader takes the listed file where it still exists. The next save
finishes the replacement. Other files of the folder do not change.
"""

from __future__ import annotations

import json
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from betavi.model.io.replace import discard, reserve, take_place, tidy

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

MARKER = "model.saving"
"""Name of the marker, after the prefix of the files."""

NAMES = ("model.safetensors", "model.json", "model.pt", "adata.h5ad", "mdata.h5mu", MARKER)
"""Names of files that an earlier save may have left unfinished."""


def write_together(
    folder: Path, prefix: str, writers: Mapping[str, Callable[[Path], object]]
) -> None:
    """Write files, by name without the prefix. ``writers`` take the path to write to.

    If a writer fails, the old files stay as they are.
    """
    marker = folder / f"{prefix}{MARKER}"
    _finish(marker)
    targets = {name: folder / f"{prefix}{name}" for name in writers}
    for name in NAMES:
        tidy(folder / f"{prefix}{name}")
    new = {name: reserve(target, target.suffix) for name, target in targets.items()}
    listed = reserve(marker, marker.suffix)
    try:
        for name, write in writers.items():
            write(new[name])
            _to_disk(new[name])
        listed.write_text(json.dumps({targets[name].name: new[name].name for name in writers}))
        _to_disk(listed)
        _to_disk(folder)
        take_place(listed, marker)
    except BaseException:
        # an interruption just after the marker took its name changes nothing
        if listed.exists() or not marker.exists():
            for path in (*new.values(), listed):
                discard(path)
        raise
    discard(listed)
    _to_disk(folder)
    _finish(marker)


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
    for name, new in _listed(marker).items():
        # another process may finish the same replacement
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
        parts = [name for pair in names.items() for name in pair]
        is_inside = all(Path(name).name == name and name != ".." for name in parts)
    except (ValueError, TypeError) as error:
        raise ValueError(_damaged(marker)) from error
    if not is_inside:
        raise ValueError(_damaged(marker))
    return {name: marker.with_name(new) for name, new in names.items()}


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
    finally:
        os.close(handle)
