"""Time of each part of a training step: networks and loss, gradients, Adam, minibatch, and the rest.

BetaVI and SCVI train in turns. The rest is the time of Lightning and of what scvi-tools records. Run
``python -m benchmarks.step_parts [genes ...]`` without other load on the machine.
"""

from __future__ import annotations

import sys
import time
from typing import Any

import numpy as np
import pandas as pd
import scvi
from lightning.pytorch.callbacks import Callback

from benchmarks.peers import THREADS, processor, quietly
from benchmarks.speed import BATCH_SIZE, HEADS, MODELS, counts, floor
from benchmarks.speed import FLOORS as PRODUCTS

N_GENES, LIKELIHOODS, ROUNDS, EPOCHS = (2000, 20_000), ("zinb",), 5, 3


class Stamps(Callback):
    """Seconds of each part of a step, of all epochs except the first."""

    def __init__(self) -> None:
        self.parts: dict[str, list[float]] = {}
        self.last = float("nan")

    def _stamp(self, trainer: Any, part: str) -> None:
        now = time.perf_counter()
        if trainer.current_epoch:
            self.parts.setdefault(part, []).append(now - self.last)
        self.last = now

    def on_train_batch_start(self, trainer: Any, *args: Any) -> None:
        """End the time between two steps."""
        self._stamp(trainer, "between steps")

    def on_before_zero_grad(self, trainer: Any, *args: Any) -> None:
        """End the networks and the loss."""
        self._stamp(trainer, "networks and loss")

    def on_before_backward(self, trainer: Any, *args: Any) -> None:
        """End the work between loss and gradients."""
        self._stamp(trainer, "rest")

    def on_after_backward(self, trainer: Any, *args: Any) -> None:
        """End the gradients."""
        self._stamp(trainer, "gradients")

    def on_before_optimizer_step(self, trainer: Any, *args: Any) -> None:
        """End the work between gradients and optimiser."""
        self._stamp(trainer, "rest")

    def on_train_batch_end(self, trainer: Any, *args: Any) -> None:
        """End the optimiser's step."""
        self._stamp(trainer, "Adam")


def minibatch(model: Any) -> float:
    """Return milliseconds to make a minibatch."""
    loader = model._make_data_loader(model.adata, shuffle=True, batch_size=BATCH_SIZE)
    start = time.perf_counter()
    n_minibatches = sum(1 for _ in loader)
    return 1e3 * (time.perf_counter() - start) / n_minibatches


def parts(model: Any) -> dict[str, float]:
    """Train for some epochs, and return milliseconds per step of each part."""
    stamps = Stamps()
    options = {"accelerator": "cpu", "enable_progress_bar": False, "batch_size": BATCH_SIZE}
    model.train(max_epochs=EPOCHS, callbacks=[stamps], **options)
    # two stamps of a step end the rest
    found = {name: 1e3 * float(np.median(values)) for name, values in stamps.parts.items()}
    found["rest"] *= 2
    found["minibatch"] = minibatch(model)
    found["rest"] += found.pop("between steps") - found["minibatch"]
    return found


def compare(n_genes: int, likelihood: str) -> pd.DataFrame:
    """Return medians over rounds, in which the models run in turns."""
    adata = counts(n_genes)
    found: dict[str, list[dict[str, float]]] = {name: [] for name in MODELS}
    products = []
    for _ in range(ROUNDS):
        for name, cls in MODELS.items():
            scvi.settings.seed = 0
            cls.setup_anndata(adata)
            found[name].append(parts(cls(adata, gene_likelihood=likelihood)))
        products.append(floor(n_genes, HEADS[likelihood], *PRODUCTS["floor"]))
    table = pd.DataFrame({name: pd.DataFrame(rows).median() for name, rows in found.items()})
    table.loc["sum"] = table.sum()
    table.loc["products alone"] = float(np.median(products))
    return table


def main(*n_genes: str) -> None:
    quietly()
    for width in map(int, n_genes or N_GENES):
        for likelihood in LIKELIHOODS:
            table = compare(width, likelihood)
            print(f"{likelihood}, {width} genes, ms:\n{table.round(2).to_string()}\n", flush=True)
    print(f"{processor()}, {THREADS} threads")


if __name__ == "__main__":
    main(*sys.argv[1:])
