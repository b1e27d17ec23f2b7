"""Time per epoch and held-out -ELBO of one process, and of two processes with half the batch each.

Each process has one thread. Runs alternate. Run ``python -m benchmarks.processes [file]`` without
other load on the machine.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import anndata
import numpy as np
import pandas as pd
import scvi
from lightning.pytorch.callbacks import Callback

from benchmarks.peers import processor, quietly, real_folder
from betavi import BetaVI

FILE, BATCH, EPOCHS = "kang_stim_ctrl_2000.h5ad", 256, 10
"""Data, cells in a step of all processes together, and epochs of a run."""

SEEDS = (0, 1, 2)


class Clock(Callback):
    """Seconds of each epoch."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def on_train_epoch_start(self, *_: Any) -> None:
        """Start the clock."""
        self.begin = perf_counter()

    def on_train_epoch_end(self, *_: Any) -> None:
        """Record the seconds of the epoch."""
        self.seconds.append(perf_counter() - self.begin)


def train(file: str, n_processes: int, seed: int, result: str) -> None:
    """Train in this process, or in this and another one, and write the result of the first."""
    quietly(1)
    scvi.settings.seed = seed
    adata, clock = anndata.read_h5ad(real_folder() / file), Clock()
    BetaVI.setup_anndata(adata)
    model = BetaVI(adata)
    several = {"devices": n_processes, "strategy": "ddp"} if n_processes > 1 else {}
    model.train(
        EPOCHS, accelerator="cpu", batch_size=BATCH // n_processes, callbacks=[clock],
        enable_progress_bar=False, **several,
    )  # fmt: skip
    if model.trainer.is_global_zero:
        loss = -model.get_elbo(indices=model.validation_indices)
        # the first epoch compiles and connects
        found = {"seconds": float(np.median(clock.seconds[1:])), "-ELBO": float(loss)}
        Path(result).write_text(json.dumps(found))


def measured(file: str, n_processes: int, seed: int) -> dict[str, float]:
    """Return the result of a run in processes of its own."""
    with TemporaryDirectory() as folder:
        result = Path(folder) / "result.json"
        command = [sys.executable, "-m", "benchmarks.processes", file, str(n_processes), str(seed)]
        threads = {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
        subprocess.run([*command, str(result)], check=True, env=os.environ | threads)
        found: dict[str, float] = json.loads(result.read_text())
        return found


def main(file: str = FILE) -> None:
    rows = []
    for seed in SEEDS:
        for n_processes in (1, 2):
            found = measured(file, n_processes, seed)
            rows.append({"processes": n_processes, "seed": seed} | found)
            print(rows[-1], flush=True)
    medians = pd.DataFrame(rows).groupby("processes")[["seconds", "-ELBO"]].median()
    print(f"\nMedians of {len(SEEDS)} seeds, {file}, {BATCH} cells in a step:\n{medians}")
    print(f"\n{processor()}, one thread in each process")


if __name__ == "__main__":
    if len(sys.argv) > 2:
        train(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
    else:
        main(*sys.argv[1:])
