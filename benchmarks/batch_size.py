"""Held-out ELBO and training time by the size of minibatches and the peak of the learning rate.

All runs have the default number of epochs. Sizes are chosen on ``peers.REAL`` and reported on
``peers.UNSEEN``. Run ``python -m benchmarks.batch_size [data set ...]`` without other load on the
machine.
"""

from __future__ import annotations

import sys

import pandas as pd

from benchmarks.peers import REAL, THREADS, UNSEEN, fit, processor, quietly
from betavi import BetaVI

SEEDS = (0, 1, 2)
SETTINGS = {
    "128 cells, peak 0.01": (128, 1e-2),
    "256 cells, peak 0.01": (256, 1e-2),
    "256 cells, peak 0.014": (256, 1.4e-2),
}
"""Cells of a minibatch, and peak of the learning rate, in turns."""


def main(*names: str) -> None:
    quietly()
    rows, data_sets = [], REAL | UNSEEN
    for name in names or data_sets:
        data = data_sets[name]
        adata = data.read()
        for seed in SEEDS:
            for setting, (batch_size, peak) in SETTINGS.items():
                options = {"batch_size": batch_size, "plan_kwargs": {"one_cycle": peak}}
                found = fit(
                    BetaVI, adata, data.batch_key, seed, enable_progress_bar=False, **options
                )
                rows.append((name, setting, *found[1:3]))
                print(*rows[-1], sep="\t", flush=True)
    table = pd.DataFrame(rows, columns=["data", "setting", "seconds", "-ELBO"])
    medians = table.pivot_table(
        index="setting", columns="data", values=["-ELBO", "seconds"], aggfunc="median", sort=False
    )
    print(f"\nMedians of {len(SEEDS)} seeds:\n{medians.round(1).to_string()}")
    print(f"\n{processor()}, {THREADS} threads")


if __name__ == "__main__":
    main(*sys.argv[1:])
