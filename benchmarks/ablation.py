"""Time of a training step with and without each part of the fast path.

One part is switched off at a time. All variants train in turns in one run, with the same model,
minibatches, seed and threads. Run ``python -m benchmarks.ablation [genes ...]`` without other load
on the machine.
"""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import numpy as np
import pandas as pd
import scvi
import torch
from llvmlite.binding import get_host_cpu_name
from torch import nn

from benchmarks.peers import THREADS, processor, quietly
from benchmarks.speed import counts, step
from betavi import BetaVI
from betavi.kernels import dense, layers
from betavi.likelihoods import Likelihood
from betavi.train import TrainingPlan, start

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

N_GENES, LIKELIHOODS = (2000, 20_000), ("zinb", "nb")
ROUNDS = 5


def without(target: Any, name: str, value: Any) -> Callable[[], AbstractContextManager[Any]]:
    """Return a switch that replaces an attribute."""
    return partial(patch.object, target, name, value)


def _dense_forward(self: nn.Module, x: torch.Tensor) -> torch.Tensor:
    return layers.TransposedLinear.forward(self, dense(x))


def _log_each_step(self: TrainingPlan, losses: Any) -> None:
    self.log("train_loss", losses.loss, on_epoch=True, prog_bar=True)
    self.compute_and_log_metrics(losses, self.train_metrics, "train")


def _usual_layout(self: nn.Linear, in_features: int, out_features: int) -> None:
    nn.Linear.__init__(self, in_features, out_features)


@contextmanager
def with_onednn() -> Iterator[None]:
    """Multiply with oneDNN on this processor, also if it is left out by default."""
    with patch.object(layers, "WIDE", (get_host_cpu_name(),)):
        layers._onednn_product.cache_clear()
        yield
    layers._onednn_product.cache_clear()


SWITCHES: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "nothing": nullcontext,
    "loss in one compiled loop": without(Likelihood, "_compiled_heads", lambda *_: None),
    "sparse product of the encoder": without(layers.CountsLinear, "forward", _dense_forward),
    "(with oneDNN)": with_onednn,
    "Adam in memory order": without(start, "ORDERED", {torch.optim.Adam: torch.optim.Adam}),
    "weights by input": without(layers.TransposedLinear, "__init__", _usual_layout),
    "metrics once per epoch": without(TrainingPlan, "_add", _log_each_step),
}
"""Parts of the fast path, with a switch that leaves the part out. One part is added instead."""


def compare(n_genes: int, likelihood: str, n_rounds: int = ROUNDS) -> pd.DataFrame:
    """Return milliseconds per step without each part: medians over rounds, and their ratios."""
    adata = counts(n_genes)
    times: dict[str, list[float]] = {name: [] for name in SWITCHES}
    for _ in range(n_rounds):
        for name, switch in SWITCHES.items():
            with switch():
                scvi.settings.seed = 0
                BetaVI.setup_anndata(adata)
                times[name].append(step(BetaVI(adata, gene_likelihood=likelihood)))
    whole = np.asarray(times["nothing"])
    rows = {
        name: {"ms": np.median(each), "longer": np.median(np.asarray(each) / whole) - 1}
        for name, each in times.items()
    }
    return pd.DataFrame(rows).T


def main(*n_genes: str) -> None:
    quietly()
    tables = {}
    for width in map(int, n_genes or N_GENES):
        for likelihood in LIKELIHOODS:
            found = tables[f"{width}, {likelihood}"] = compare(width, likelihood)
            print(f"\n{width} genes, {likelihood}\n{found.round(3).to_string()}", flush=True)
    print(pd.concat(tables, axis=1).round(3).to_string())
    print(f"\n{processor()}, {THREADS} threads, torch {torch.__version__}")


if __name__ == "__main__":
    main(*sys.argv[1:])
