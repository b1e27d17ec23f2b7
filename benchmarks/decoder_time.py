"""Time of a training step by decoder. ``python -m benchmarks.decoder_time [rounds]``.

Pancreas (3,696 cells, 2,000 genes), 32 dimensions, minibatches of 128, two threads. Each round trains
every row for some epochs in turn, and the median step of a round counts. DRVI has its defaults, and runs
where scvi-tools has it (version 1.5). Run it without other load on the machine.
"""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import scvi
from lightning.pytorch.callbacks import Callback

from benchmarks.disentanglement import DATA
from benchmarks.peers import THREADS, processor, quietly
from betavi import BetaVI

if TYPE_CHECKING:
    from collections.abc import Callable

    from anndata import AnnData

N_LATENT, N_EPOCHS, ROUNDS = 32, 4, 5


class Steps(Callback):
    """Times of the training steps, seconds."""

    def __init__(self) -> None:
        self.begin, self.seconds = 0.0, []

    def on_train_batch_start(self, *_: Any) -> None:
        """Note the time."""
        self.begin = time.perf_counter()

    def on_train_batch_end(self, *_: Any) -> None:
        """Keep the time of the step."""
        self.seconds.append(time.perf_counter() - self.begin)


def of_betavi(decoder: str) -> Callable[[AnnData], Any]:
    def make(adata: AnnData) -> BetaVI:
        BetaVI.setup_anndata(adata)
        return BetaVI(adata, n_latent=N_LATENT, gene_likelihood="nb", decoder=decoder)

    return make


def of_drvi(adata: AnnData) -> Any:
    scvi.external.DRVI.setup_anndata(adata)
    return scvi.external.DRVI(adata, n_latent=N_LATENT)


ROWS = {"plain": of_betavi("plain"), "additive": of_betavi("additive")}
if hasattr(scvi.external, "DRVI"):
    ROWS["DRVI"] = of_drvi


def main(rounds: str = str(ROUNDS)) -> None:
    quietly()
    adata, rows = DATA["pancreas"](0).adata, []
    for _ in range(int(rounds)):
        for row, make in ROWS.items():
            steps = Steps()
            options = {"enable_progress_bar": False, "batch_size": 128, "callbacks": [steps]}
            make(adata).train(max_epochs=N_EPOCHS, **options)
            rows.append({"row": row, "ms": 1000 * np.median(steps.seconds)})
            print(rows[-1], flush=True)
    table = pd.DataFrame(rows).groupby("row", sort=False)["ms"].agg(["median", "min", "max"])
    table["ratio to plain"] = table["median"] / table["median"]["plain"]
    print(f"\nMilliseconds of a step:\n{table.round(2).to_string()}")
    print(f"\n{processor()}, {THREADS} threads, scvi-tools {scvi.__version__}")


if __name__ == "__main__":
    main(*sys.argv[1:])
