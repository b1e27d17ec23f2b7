"""Training time and held-out ELBO on small data, with the defaults of BetaVI and SCVI.

Cells and genes are random cells and variable genes of pbmc10k, which was used for no default. SCVI
also runs with one-cycle learning rates; the fastest of those that tie with the best counts. The last
lines have the first training of an installation, which compiles the loops of BetaVI, and the second. Run
``python -m benchmarks.small_data`` without other load on the machine.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from typing import TYPE_CHECKING, Any

import anndata
import mudata
import numpy as np
import pandas as pd
import scanpy as sc
import scvi

from benchmarks.peers import THREADS, processor, quietly, real_folder
from benchmarks.time_to_quality import PEAKS, RUNS, cycle, fastest, held_out, trained
from betavi import BetaVI

if TYPE_CHECKING:
    from anndata import AnnData

CELLS, GENES = (500, 1200, 5000), (500, 2000)
FIRST = (1200, 500)
"""Cells and genes of the first training of an installation."""


def some(n_cells: int, n_genes: int) -> AnnData:
    """Return random cells and the most variable genes."""
    rna = mudata.read_h5mu(real_folder() / "pbmc10k_6855x4000.h5mu")["rna"]
    rna = anndata.AnnData(rna.X, obs=rna.obs[[]], var=rna.var[[]])
    chosen = np.random.default_rng(0).permutation(rna.n_obs)[:n_cells]
    sc.pp.highly_variable_genes(rna, n_top_genes=n_genes, flavor="seurat_v3", subset=True)
    cells = rna[np.sort(chosen)]
    cells = cells[np.asarray(cells.X.sum(axis=1)).ravel() > 0]
    return cells[:, np.asarray(cells.X.sum(axis=0)).ravel() > 0].copy()


def run(cls: type, adata: AnnData) -> tuple[float, float]:
    """Return seconds of a training with defaults, and nats per held-out cell."""
    start = time.perf_counter()
    model = trained(cls, adata, None)
    seconds = time.perf_counter() - start
    return seconds, held_out(model)


def compare(n_cells: int, n_genes: int) -> dict[str, Any]:
    adata = some(n_cells, n_genes)
    trained(BetaVI, adata, None, max_epochs=1)
    seconds, nats = run(BetaVI, adata)
    their_seconds, their_nats = run(scvi.model.SCVI, adata)
    best = fastest([cycle(adata, None, peak, epochs) for peak in PEAKS for epochs in RUNS])
    return {
        "cells": n_cells, "genes": n_genes, "BetaVI, s": seconds, "BetaVI, nats": nats,
        "SCVI, s": their_seconds, "SCVI, nats": their_nats, "ratio": their_seconds / seconds,
        "SCVI best, s": best.seconds, "SCVI best, nats": best.nats,
        "ratio to best": best.seconds / seconds, "SCVI best, how": f"{best.epochs} x {best.how}",
    }  # fmt: skip


def first(name: str) -> list[float]:
    """Return seconds of the first two trainings of an installation, in separate processes."""
    seconds = []
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"NUMBA_CACHE_DIR": folder}
        command = [sys.executable, "-m", "benchmarks.small_data", name]
        for _ in range(2):
            printed = subprocess.run(
                command, check=True, capture_output=True, text=True, env=environment
            ).stdout
            seconds.append(float(printed.splitlines()[-1]))
    return seconds


def main(*names: str) -> None:
    quietly()
    if names:
        print(run({"BetaVI": BetaVI, "SCVI": scvi.model.SCVI}[names[0]], some(*FIRST))[0])
        return
    rows = []
    for n_cells in CELLS:
        for n_genes in GENES:
            rows.append(compare(n_cells, n_genes))
            print(rows[-1], flush=True)
    print(pd.DataFrame(rows).round(1).to_string(index=False))
    for name in ("BetaVI", "SCVI"):
        cold, warm = first(name)
        print(f"{FIRST[0]} x {FIRST[1]}, {name}: first training {cold:.1f} s, later {warm:.1f} s")
    print(f"{processor()}, {THREADS} threads")


if __name__ == "__main__":
    main(*sys.argv[1:])
