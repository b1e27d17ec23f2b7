"""Additional memory of denoising into a zarr store, and into the object.

Run with ``python -m benchmarks.denoise_memory [cells [genes]]``. The operating system reports the
peak memory of a process, so each measurement runs in its own process.
"""

from __future__ import annotations

import resource
import sys
import tempfile
import threading
import time
import warnings
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import torch
import zarr
from scipy import sparse

from benchmarks.peers import quietly
from betavi import BetaVI

CELLS, GENES, DENSITY = 200_000, 2000, 0.05
TRAINED_ON = 5000
GIB = 2**30
WAYS: dict[str, dict[str, Any]] = {
    "zarr": {"std_layer_added": None},
    "zarr, standard deviations of 5 draws": {"std_layer_added": "std", "n_samples": 5},
    "zarr, sparse above 0.05": {"drop_below": 0.05},
    "into the object": {},
}


def simulated(cells: int, genes: int) -> anndata.AnnData:
    """Return sparse counts of eight cell types, drawn in parts to limit memory."""
    rng = np.random.default_rng(0)
    profiles = rng.gamma(0.3, size=(8, genes))
    profiles *= DENSITY * genes * 1.3 / profiles.sum(axis=1, keepdims=True)
    parts = []
    for start in range(0, cells, 5000):
        types = rng.integers(8, size=min(5000, cells - start))
        parts.append(sparse.csr_matrix(rng.poisson(profiles[types]).astype(np.float32)))
    return anndata.AnnData(sparse.vstack(parts, format="csr"))


class Watch(threading.Thread):
    """Thread that records the highest memory of this process until it is stopped."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.now = self.highest = resident()
        self.stopped = threading.Event()

    def run(self) -> None:
        """Record the memory every 10 ms."""
        while not self.stopped.wait(0.01):
            self.highest = max(self.highest, resident())


def resident() -> int:
    """Return the current memory of this process, bytes."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def measure(name: str, cells: int, genes: int) -> dict[str, float]:
    quietly(1)
    adata = simulated(cells, genes)
    few = adata[:TRAINED_ON].copy()
    BetaVI.setup_anndata(few)
    model = BetaVI(few)
    model.train(1, enable_progress_bar=False, accelerator="cpu")
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        out = None if name == "into the object" else Path(folder) / "x.zarr"
        watch = Watch()
        watch.start()
        start = time.perf_counter()
        model.denoise(adata, out=out, show_progress=False, **WAYS[name])
        seconds = time.perf_counter() - start
        watch.stopped.set()
        watch.join()
        kernel = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        found = {"GiB before": watch.now / GIB, "GiB added": (watch.highest - watch.now) / GIB}
        found |= {"GiB peak": kernel / GIB, "minutes": seconds / 60}
        if out is not None:
            found["difference"] = difference(model, adata, out, name)
    return found


def difference(model: BetaVI, adata: anndata.AnnData, out: Path, name: str) -> float:
    """Return the largest relative difference between values in the file and in memory."""
    if "drop_below" in WAYS[name] or "n_samples" in WAYS[name]:
        return float("nan")
    cells = np.random.default_rng(1).choice(adata.n_obs, min(2000, adata.n_obs), replace=False)
    cells.sort()
    some = adata[cells].copy()
    model.denoise(some, show_progress=False)
    written = zarr.open_group(out, mode="r")["layers/denoised"]
    rows = np.concatenate([written[c : c + 1] for c in cells])
    return float((np.abs(rows - some.layers["denoised"]) / some.layers["denoised"]).max())


def main(*sizes: str) -> None:
    cells, genes = [*map(int, sizes), *(CELLS, GENES)[len(sizes) :]]
    dense = cells * genes * 4 / GIB
    print(f"{cells} x {genes}, {DENSITY:.0%} nonzero; a dense matrix would be {dense:.2f} GiB")
    context = get_context("spawn")
    for name in WAYS:
        with context.Pool(1) as pool:
            found = pool.apply(measure, (name, cells, genes))
        print(
            f"{name:38s}",
            "  ".join(f"{key} {value:.3g}" for key, value in found.items()),
            flush=True,
        )


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(*sys.argv[1:])
