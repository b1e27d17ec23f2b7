"""Training from files: memory, speed and quality, beside training in memory.

Cells are simulated into files of 100,000 cells, sorted by batch. Each measurement trains BetaVI
for one epoch in a process of its own. *added* is the highest memory above that before the files are
opened. *cells/s* is the speed of training steps, without setup and validation. *ELBO* is the −ELBO of
held-out cells, in nats per cell. The other rows are: cells read one by one; anndata's AnnLoader; and
annbatch with scvi-tools' datamodule (newest scvi-tools only, if annbatch is installed), on the same files.
``python -m benchmarks.out_of_core [cells [genes]] [row ...]``. With 1,000,000 cells, it takes about two hours, and 5 GB on the disk.
"""

from __future__ import annotations

import importlib.util
import sys
import tempfile
import time
import warnings
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import anndata
import mudata
import numpy as np
import pandas as pd
import scvi
import torch
from lightning.pytorch import Callback, LightningDataModule
from scipy import sparse

from benchmarks.denoise_memory import GIB, Watch
from benchmarks.peers import processor, quietly
from betavi import BetaVI, JointVI
from betavi.data import file_loader, read_lazy

CELLS, GENES, PROTEINS, DENSITY = 1_000_000, 2000, 50, 0.1
PER_FILE, PER_PART, N_FACTORS = 100_000, 5000, 10
HELD_OUT, BATCH_SIZE = 10_000, 128
N_STEPS_OF_SLOW = 300
"""Steps of the loaders that read cells one by one, whose epoch would take hours."""

SEEDS = (0, 1, 2)
HAS_ANNBATCH = importlib.util.find_spec("annbatch") is not None


def profiles(genes: int) -> tuple[np.ndarray, np.ndarray]:
    """Return log base expression, ``(genes,)``, and loadings, ``(factors, genes)``."""
    rng = np.random.default_rng(0)
    return rng.normal(size=genes), 0.5 * rng.normal(size=(N_FACTORS, genes))


def counts(rng: np.random.Generator, cells: int, genes: int, batch: float) -> sparse.csr_matrix:
    """Return Poisson counts of cells with a continuous position, about 10 % nonzero."""
    base, loadings = profiles(genes)
    logits = base + rng.normal(size=(cells, N_FACTORS)) @ loadings
    logits[:, ::2] += batch
    shares = np.exp(logits - logits.max(axis=1, keepdims=True)).astype(np.float32)
    shares /= shares.sum(axis=1, keepdims=True)
    depth = 1.7 * DENSITY * genes * np.exp(0.3 * rng.normal(size=(cells, 1)))
    return sparse.csr_matrix(rng.poisson(shares * depth).astype(np.float32))


def simulate(folder: Path, cells: int, genes: int) -> None:
    """Write files of 100,000 cells, as h5ad and as zarr."""
    for number, first in enumerate(range(0, cells, PER_FILE)):
        rng, n_here = np.random.default_rng(number), min(PER_FILE, cells - first)
        sizes = [min(PER_PART, n_here - start) for start in range(0, n_here, PER_PART)]
        batch = 0.3 * (number % 2)
        matrix = sparse.vstack([counts(rng, size, genes, batch) for size in sizes], format="csr")
        names = [f"cell_{i}" for i in range(first, first + n_here)]
        batches = pd.Categorical([f"batch_{number % 2}"] * n_here, ["batch_0", "batch_1"])
        obs = pd.DataFrame({"batch": batches}, index=names)
        part = anndata.AnnData(matrix, obs=obs)
        part.write_h5ad(folder / f"{number:03d}.h5ad")
        part.write_zarr(folder / f"{number:03d}.zarr")
    held_out = counts(np.random.default_rng(10**6), HELD_OUT, genes, 0.0)
    obs = pd.DataFrame({"batch": "batch_0"}, index=[f"new_{i}" for i in range(HELD_OUT)])
    anndata.AnnData(held_out, obs=obs).write_h5ad(folder / "held_out.h5ad")


def simulate_mudata(folder: Path, cells: int, genes: int) -> None:
    """Write an h5mu file with RNA and proteins, and another of held-out cells."""
    write_mudata(folder / "cells.h5mu", np.random.default_rng(0), cells, genes)
    write_mudata(folder / "held_out.h5mu", np.random.default_rng(10**6), HELD_OUT, genes)


def write_mudata(path: Path, rng: np.random.Generator, cells: int, genes: int) -> None:
    sizes = [min(PER_PART, cells - start) for start in range(0, cells, PER_PART)]
    rna = sparse.vstack([counts(rng, size, genes, 0.0) for size in sizes], format="csr")
    loadings = np.random.default_rng(1).gamma(1.0, size=(genes, PROTEINS)).astype(np.float32)
    protein = sparse.csr_matrix(rng.poisson(rna @ loadings * 0.1).astype(np.float32))
    names = [f"cell_{i}" for i in range(cells)]
    parts = {"rna": rna, "prot": protein}
    made = {
        name: anndata.AnnData(matrix, obs=pd.DataFrame(index=names))
        for name, matrix in parts.items()
    }
    for name, part in made.items():
        part.var_names = [f"{name}_{i}" for i in range(part.n_vars)]
    mudata.MuData(made).write(path)


class Speed(Callback):
    """Seconds of the training steps, with the time in which they wait for cells."""

    def __init__(self) -> None:
        self.start = self.end = 0.0
        self.n_cells = 0

    def on_train_batch_start(self, *_: Any) -> None:
        """Start at the first minibatch."""
        self.start = self.start or time.perf_counter()

    def on_train_batch_end(
        self, trainer: Any, plan: Any, outputs: Any, batch: Any, *_: Any
    ) -> None:
        """Count the cells."""
        self.n_cells += len(batch["batch"])
        self.end = time.perf_counter()


class Loaded(LightningDataModule):
    """Minibatches of anndata's AnnLoader."""

    def __init__(self, paths: list[Path]) -> None:
        super().__init__()
        self.parts = [anndata.read_h5ad(path, backed="r") for path in paths]

    def train_dataloader(self) -> Any:
        """Return a loader of single cells in random order."""
        from anndata.experimental import AnnCollection, AnnLoader

        cells = AnnCollection(self.parts, join_obs="inner", index_unique=None)
        return AnnLoader(cells, batch_size=BATCH_SIZE, shuffle=True)

    def on_before_batch_transfer(self, batch: Any, _: int) -> dict[str, torch.Tensor]:
        """Return a minibatch as scvi-tools names its fields."""
        matrix = batch.X
        dense = matrix.to_dense() if matrix.layout != torch.strided else matrix
        codes = pd.Series(batch.obs["batch"]).str[-1].astype(int).to_numpy()
        batches = torch.as_tensor(codes)[:, None]
        return {"X": dense.float(), "batch": batches, "labels": torch.zeros_like(batches)}


def in_memory(files: list[Path]) -> anndata.AnnData:
    return anndata.concat([anndata.read_h5ad(path) for path in files])


def model_of(name: str, folder: Path, seed: int, n_files: int) -> tuple[Any, dict[str, Any]]:
    """Return an untrained model, and arguments of its training."""
    scvi.settings.seed = seed
    kind = "zarr" if "zarr" in name else "h5ad"
    files = sorted(folder.glob(f"0*.{kind}"))[:n_files]
    if name == "annbatch":
        datamodule = BetaVI.setup_annbatch(
            collection_path=str(folder / "collection.annbatch"), paths=list(map(str, files)),
            batch_key="batch", batch_size=BATCH_SIZE, chunk_size=64, preload_nchunks=256,
            preload_to_gpu=False, shuffle=True, rebuild=not (folder / "collection.annbatch").exists(),
        )  # fmt: skip
        return BetaVI(registry=datamodule.registry), {"datamodule": datamodule, "train_size": 0.9}
    adata = in_memory(files) if name == "in memory" else read_lazy(list(map(str, files)))
    adata.obs["batch"] = adata.obs["batch"].cat.remove_unused_categories()
    BetaVI.setup_anndata(adata, batch_key="batch")
    model = BetaVI(adata)
    if name == "AnnLoader":
        return model, {"datamodule": Loaded(files), "limit_train_batches": N_STEPS_OF_SLOW}
    return model, {}


def measure(name: str, folder: Path, seed: int, n_files: int) -> dict[str, Any]:
    quietly(1)
    warnings.filterwarnings("ignore")
    if name == "h5ad, single cells":
        file_loader.FileMinibatches.block_size = 1
    watch, speed = Watch(), Speed()
    watch.start()
    start = time.perf_counter()
    if name.startswith("MuData"):
        model, options = mudata_model(name, folder, seed)
    else:
        model, options = model_of(name, folder, seed, n_files)
    ready = time.perf_counter()
    model.train(
        max_epochs=1, enable_progress_bar=False, accelerator="cpu", callbacks=[speed],
        batch_size=BATCH_SIZE, **options,
    )  # fmt: skip
    n_cells = options["datamodule"].dataset.n_obs if model.adata is None else model.adata.n_obs
    found = {
        "data": name, "cells": n_cells, "seed": seed, "setup, s": ready - start,
        "cells/s": speed.n_cells / (speed.end - speed.start),
    }  # fmt: skip
    if "datamodule" not in options:
        held_out = folder / ("held_out.h5mu" if name.startswith("MuData") else "held_out.h5ad")
        found["ELBO"] = -float(model.get_elbo(read_lazy(held_out)))
        encoding = time.perf_counter()
        model.get_latent_representation()
        found["encoded/s"] = n_cells / (time.perf_counter() - encoding)
    watch.stopped.set()
    found["added, GiB"] = (watch.highest - watch.now) / GIB
    return found


def mudata_model(name: str, folder: Path, seed: int) -> tuple[Any, dict[str, Any]]:
    scvi.settings.seed = seed
    path = folder / "cells.h5mu"
    mdata = mudata.read_h5mu(path) if "memory" in name else read_lazy(path)
    JointVI.setup_mudata(mdata, likelihoods={"rna": "zinb", "prot": "nb"})
    return JointVI(mdata), {}


def main(*words: str) -> None:
    sizes = [int(word) for word in words if word.isdigit()]
    cells, genes = [*sizes, *(CELLS, GENES)[len(sizes) :]]
    print(f"{cells} x {genes}, {processor()}, one thread", flush=True)
    n_files, rows = -(-cells // PER_FILE), []
    context = get_context("spawn")
    slow = ["h5ad, single cells", "AnnLoader", *(["annbatch"] if HAS_ANNBATCH else [])]
    jobs = [(name, seed, n_files) for seed in SEEDS for name in ("in memory", "h5ad")]
    jobs += [(name, 0, n_files) for name in ("zarr", *slow)] + [("h5ad", 0, 1), ("in memory", 0, 1)]
    jobs += [(name, seed, 1) for seed in SEEDS for name in ("MuData in memory", "MuData, h5mu")]
    chosen = [word for word in words if not word.isdigit()]
    jobs = [job for job in jobs if not chosen or job[0] in chosen or f"{job[0]} {job[2]}" in chosen]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        of_mudata = [job for job in jobs if job[0].startswith("MuData")]
        if most := max((job[2] for job in jobs if job not in of_mudata), default=0):
            simulate(folder, min(cells, most * PER_FILE), genes)
        if of_mudata:
            simulate_mudata(folder, cells // 5, genes)
        for name, seed, files in jobs:
            with context.Pool(1) as pool:
                rows.append(pool.apply(measure, (name, folder, seed, files)))
            print(
                {
                    key: value if isinstance(value, str) else round(value, 3)
                    for key, value in rows[-1].items()
                },
                flush=True,
            )
    table = pd.DataFrame(rows).groupby(["cells", "data"], sort=False).median().drop(columns="seed")
    print(f"\nMedians over seeds:\n{table.round(2).to_string()}")


if __name__ == "__main__":
    main(*sys.argv[1:])
