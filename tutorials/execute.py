"""Executes the notebooks and keeps what they show: ``python -m tutorials.execute [name ...]``.

``make tutorials`` runs all of them. What libraries say to the standard error is left out, so that
what is committed differs only where results do.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient

HERE = Path(__file__).parent
SECONDS_PER_CELL, SECONDS = 240, 600
"""Time limits of a cell and of a notebook, on two cores. Another process may use one of them."""


def notebooks() -> list[Path]:
    """Return the notebooks in their order."""
    return sorted(HERE.glob("*.ipynb"))


def executed(path: Path) -> nbformat.NotebookNode:
    """Return a notebook with new outputs; what fails in it, or takes too long, raises."""
    notebook = nbformat.read(path, as_version=4)
    end = time.monotonic() + SECONDS
    client = NotebookClient(
        notebook,
        timeout_func=lambda _cell: max(1, min(SECONDS_PER_CELL, end - time.monotonic())),
        kernel_name="python3",
    )
    client.execute(cwd=str(path.parent))
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = [out for out in cell.outputs if out.get("name") != "stderr"]
    notebook.metadata.pop("widgets", None)
    return notebook


def main(*names: str) -> None:
    for path in notebooks():
        if names and path.stem not in names:
            continue
        start = time.monotonic()
        nbformat.write(executed(path), path)
        print(f"{path.name}: {time.monotonic() - start:.0f} s, {path.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main(*sys.argv[1:])
