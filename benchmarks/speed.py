"""Time of a training step, compared with SCVI and with the matrix products alone.

Both models train in turns in one run: same architecture, likelihood, minibatches, seed and threads.
Run ``python -m benchmarks.speed [genes ...]`` without other load on the machine.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import scvi
import torch
from lightning.pytorch.callbacks import Callback

from benchmarks.peers import REAL, THREADS, forget_peak, gibibytes, quietly
from betavi import BetaVI
from betavi.datasets import simulate_counts
from betavi.kernels.layers import product

if TYPE_CHECKING:
    from anndata import AnnData

N_GENES = (2000, 20_000)
HEADS = {"zinb": 2, "nb": 1, "poisson": 1}
"""Number of output layers by likelihood."""

N_HIDDEN, BATCH_SIZE = 128, 128
ROUNDS, EPOCHS = 5, 2
CELLS = 10_000
"""Number of cells at 2,000 genes, for which real cells are repeated."""

MODELS = {"BetaVI": BetaVI, "SCVI": scvi.model.SCVI}
FLOORS: dict[str, tuple[torch.dtype, Any]] = {
    "floor": (torch.float32, torch.matmul),
    "fastest": (torch.float32, product),
    "bfloat16": (torch.bfloat16, torch.matmul),
}
"""Products of PyTorch, products of the faster of its libraries, and products in bfloat16."""


class Clock(Callback):
    """Seconds per step of all epochs except the first, in which loops are compiled."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """Start the clock."""
        self._start, self._steps = time.perf_counter(), trainer.global_step

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Record the seconds per step."""
        took = time.perf_counter() - self._start
        if trainer.current_epoch:
            self.seconds.append(took / (trainer.global_step - self._steps))


def counts(n_genes: int) -> AnnData:
    """Return real counts if available with this number of genes, else simulated counts."""
    if os.environ.get("BETAVI_DATA_DIR") and n_genes <= 10_000:
        adata = REAL["pbmc donor A"]._replace(n_top_genes=n_genes).read()
    else:
        adata = simulate_counts(2000, n_genes, library_size=n_genes / 8)
    cells = np.flatnonzero(np.asarray(adata.X.sum(axis=1)).ravel() > 0)
    # an epoch needs many steps, so that work done once per epoch has little effect
    times = -(-CELLS // len(cells)) if n_genes <= 10_000 else 1
    return adata[np.tile(cells, times)].copy()


def floor(
    n_genes: int, n_heads: int, dtype: torch.dtype, multiply: Any, repeats: int = 20
) -> float:
    """Return milliseconds of the products of a step: two for the encoder, three for each head."""
    x, slope = (torch.randn(BATCH_SIZE, n_genes, dtype=dtype) for _ in range(2))
    encoder = torch.randn(N_HIDDEN, n_genes, dtype=dtype)
    h, decoder = torch.randn(BATCH_SIZE, N_HIDDEN, dtype=dtype), encoder.t().contiguous()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        multiply(x, encoder.t())
        multiply(h.t(), x)
        for _ in range(n_heads):
            multiply(h, decoder.t())
            multiply(slope, decoder)
            multiply(h.t(), slope)
        seconds.append(time.perf_counter() - start)
    return 1e3 * float(np.median(seconds))


def step(model: Any) -> float:
    """Train for some epochs, and return milliseconds per step."""
    clock = Clock()
    options = {"accelerator": "cpu", "enable_progress_bar": False, "batch_size": BATCH_SIZE}
    model.train(max_epochs=1 + EPOCHS, callbacks=[clock], **options)
    return 1e3 * float(np.median(clock.seconds))


def getters(models: dict[str, Any]) -> dict[str, float]:
    """Return cells per second of calls of trained models, medians over rounds."""
    ours, theirs = models["BetaVI"], models["SCVI"]
    calls = {f"{name} latent": model.get_latent_representation for name, model in models.items()}
    denoise = partial(ours.denoise, layer_added="denoised", show_progress=False)
    calls |= {"BetaVI denoised": denoise, "SCVI denoised": theirs.get_normalized_expression}
    rates: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(ROUNDS):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            rates[name].append(ours.adata.n_obs / (time.perf_counter() - start))
    return {name: float(np.median(values)) for name, values in rates.items()}


def peak(name: str, likelihood: str, n_genes: int) -> float:
    """Return GiB that training needs in addition to counts and model, in a separate process."""
    run = [sys.executable, "-m", "benchmarks.speed", "peak", name, likelihood, str(n_genes)]
    printed = subprocess.run(run, check=True, capture_output=True, text=True).stdout
    return float(printed.splitlines()[-1])


def print_peak(name: str, likelihood: str, n_genes: str) -> None:
    """Print the result of :func:`peak` for this process."""
    adata = counts(int(n_genes))
    MODELS[name].setup_anndata(adata)
    model = MODELS[name](adata, gene_likelihood=likelihood)
    forget_peak()
    before = gibibytes()
    step(model)
    print(gibibytes() - before)


def compare(adata: AnnData, likelihood: str) -> dict[str, Any]:
    """Return medians over rounds, in which models and products run in turns."""
    times: dict[str, list[float]] = {name: [] for name in (*MODELS, *FLOORS)}
    models = {}
    for _ in range(ROUNDS):
        for name, cls in MODELS.items():
            scvi.settings.seed = 0
            cls.setup_anndata(adata)
            models[name] = cls(adata, gene_likelihood=likelihood)
            times[name].append(step(models[name]))
        for name, how in FLOORS.items():
            times[name].append(floor(adata.n_vars, HEADS[likelihood], *how))
    medians = {name: float(np.median(values)) for name, values in times.items()}
    ratios = [theirs / ours for theirs, ours in zip(times["SCVI"], times["BetaVI"], strict=True)]
    row: dict[str, Any] = {"likelihood": likelihood, "genes": adata.n_vars}
    row |= {f"{name}, ms": value for name, value in medians.items()}
    row["speed-up over SCVI"] = float(np.median(ratios))
    for name in ("floor", "fastest"):
        row[f"ratio to {name}"] = medians["BetaVI"] / medians[name]
    row |= {f"{name} trained, cells/s": 1e3 * BATCH_SIZE / medians[name] for name in MODELS}
    row |= {f"{name}, cells/s": rate for name, rate in getters(models).items()}
    row |= {f"{name}, peak GiB": peak(name, likelihood, adata.n_vars) for name in MODELS}
    return row


def imports() -> None:
    """Print the import time of packages, measured in separate processes."""
    for package in ("scvi", "betavi"):
        seconds = []
        for _ in range(3):
            start = time.perf_counter()
            subprocess.run([sys.executable, "-c", f"import rich.pretty, {package}"], check=True)
            seconds.append(time.perf_counter() - start)
        print(f"import {package}: {np.median(seconds):.1f} s")


def main(*n_genes: str) -> None:
    quietly()
    if n_genes[:1] == ("peak",):
        print_peak(*n_genes[1:])
        return
    imports()
    rows = []
    for width in map(int, n_genes or N_GENES):
        adata = counts(width)
        share = adata.X.nnz / np.prod(adata.shape)
        print(f"{adata.n_obs} cells, {adata.n_vars} genes, {share:.1%} of the counts above zero")
        for likelihood in HEADS:
            rows.append(compare(adata, likelihood))
            print(pd.Series(rows[-1]).to_string(), "\n", flush=True)
    print(pd.DataFrame(rows).round(2).to_string(index=False))
    print(f"\n{THREADS} threads, torch {torch.__version__}")


if __name__ == "__main__":
    main(*sys.argv[1:])
