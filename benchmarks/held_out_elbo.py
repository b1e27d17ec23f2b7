"""Held-out ELBO of BetaVI beside SCVI: same cells, split, seed and schedule.

Run with ``make bench``, or ``python -m benchmarks.held_out_elbo [data set ...]``.
"""

from __future__ import annotations

import sys

import pandas as pd
import scvi

from benchmarks.peers import AS_SCVI, REAL, UNSEEN, fit
from betavi import BetaVI

SEEDS = (0, 1, 2)
WARMUP_EPOCHS = 10
MAX_EPOCHS = 50


def main(*names: str) -> None:
    rows = []
    data_sets = REAL | UNSEEN
    for name in names or data_sets:
        data = data_sets[name]
        adata = data.read()
        for seed in SEEDS:
            for cls in (BetaVI, scvi.model.SCVI):
                result = fit(
                    cls,
                    adata,
                    data.batch_key,
                    seed,
                    max_epochs=MAX_EPOCHS,
                    enable_progress_bar=False,
                    plan_kwargs={"n_epochs_kl_warmup": WARMUP_EPOCHS, **AS_SCVI},
                )
                rows.append((name, cls.__name__, seed, *result[1:]))
                print(*rows[-1], sep="\t", flush=True)
    table = pd.DataFrame(rows, columns=["data", "model", "seed", "seconds", "-ELBO", "distortion"])
    print(f"\nMedian of {len(SEEDS)} seeds, {MAX_EPOCHS} epochs, nats per held-out cell:")
    columns = ["-ELBO", "distortion"]
    print(table.groupby(["data", "model"])[columns].median().round(1).to_string())


if __name__ == "__main__":
    main(*sys.argv[1:])
