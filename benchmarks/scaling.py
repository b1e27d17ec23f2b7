"""Growth of time and memory of training with the number of cells and genes.

Each point runs in its own process: one epoch of BetaVI on simulated counts in compressed rows, which
are memory-mapped from files. Data sets above ten thousand cells repeat the same ten thousand cells.
Run ``python -m benchmarks.scaling`` without other load on the machine.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse

from benchmarks.peers import gibibytes, quietly

CELLS = (1000, 3000, 10_000, 30_000, 100_000, 300_000, 1_000_000)
GENES = (500, 1000, 2000, 5000, 10_000, 20_000, 30_000)
FIXED_CELLS, FIXED_GENES = 10_000, 2000
DISTINCT = 10_000
NONZERO = 0.07
"""Share of counts above zero, for any number of genes."""

PARTS = ("data", "indices", "indptr")


def write(folder: Path, n_cells: int, n_genes: int) -> None:
    """Write counts as the parts of a matrix in compressed rows."""
    from betavi.datasets import simulate_counts

    some = simulate_counts(min(n_cells, DISTINCT), n_genes, library_size=n_genes * NONZERO * 1.7).X
    times, rest = divmod(n_cells, some.shape[0])
    whole = sparse.vstack([some] * times + ([some[:rest]] if rest else []), format="csr")
    for name in PARTS:
        np.save(folder / f"{name}.npy", getattr(whole, name))


def read(folder: Path, n_genes: int) -> AnnData:
    parts = [np.load(folder / f"{name}.npy", mmap_mode="r") for name in PARTS]
    return AnnData(sparse.csr_matrix(tuple(parts), shape=(len(parts[-1]) - 1, n_genes)))


def measure(folder: str, n_genes: int) -> dict[str, Any]:
    """Train for two epochs, and measure the second."""
    from benchmarks.speed import Clock
    from betavi import BetaVI

    quietly()
    before = gibibytes()
    adata = read(Path(folder), n_genes)
    start = time.perf_counter()
    # with few genes, some simulated cells have no counts
    BetaVI.setup_anndata(adata, keep_empty_cells=True)
    model = BetaVI(adata)
    setup = time.perf_counter() - start
    clock = Clock()
    options = {"accelerator": "cpu", "enable_progress_bar": False, "train_size": 1.0}
    model.train(2, callbacks=[clock], **options)
    return {
        "cells": adata.n_obs,
        "genes": n_genes,
        "ms per step": 1e3 * clock.seconds[0],
        "s per million cells": 1e6 / 128 * clock.seconds[0],
        "setup, s": setup,
        "GiB": gibibytes() - before,
    }


def points() -> list[tuple[int, int]]:
    return [(n, FIXED_GENES) for n in CELLS] + [(FIXED_CELLS, n) for n in GENES]


def exponent(table: pd.DataFrame, of: str, by: str) -> float:
    """Return the slope of a straight line through logarithms."""
    return float(np.polyfit(np.log(table[by]), np.log(table[of]), 1)[0])


def main() -> None:
    rows = []
    for n_cells, n_genes in points():
        with tempfile.TemporaryDirectory() as folder:
            write(Path(folder), n_cells, n_genes)
            command = [sys.executable, "-m", "benchmarks.scaling", folder, str(n_genes)]
            answer = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        rows.append(json.loads(answer.splitlines()[-1]))
        print(pd.Series(rows[-1]).round(2).to_dict(), flush=True)
    table = pd.DataFrame(rows)
    print(table.round(2).to_string(index=False))
    by_cells, by_genes = table[: len(CELLS)], table[len(CELLS) :]
    epoch = by_cells.assign(epoch=by_cells["s per million cells"] * by_cells["cells"])
    print(f"Exponents. Time per epoch by cells: {exponent(epoch, 'epoch', 'cells'):.2f}; time per "
          f"step by genes: {exponent(by_genes, 'ms per step', 'genes'):.2f}; memory, including a "
          f"constant part, by cells: {exponent(by_cells, 'GiB', 'cells'):.2f}, by genes: "
          f"{exponent(by_genes, 'GiB', 'genes'):.2f}.")  # fmt: skip


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(measure(sys.argv[1], int(sys.argv[2]))))
    else:
        main()
