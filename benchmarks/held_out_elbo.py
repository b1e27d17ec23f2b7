"""Held-out ELBO of BetaVI beside SCVI: same cells, split, seed and schedule.

Run with ``make bench``, or ``python -m benchmarks.held_out_elbo [epochs]``.
"""

from __future__ import annotations

import sys

import pandas as pd
import scvi

from benchmarks.peers import REAL, fit
from betavi import BetaVI

SEEDS = (0, 1, 2)
WARMUP_EPOCHS = 10


def main(max_epochs: int = 50) -> None:
    rows = []
    for name, data in REAL.items():
        adata = data.read()
        for seed in SEEDS:
            for cls in (BetaVI, scvi.model.SCVI):
                result = fit(
                    cls,
                    adata,
                    data.batch_key,
                    seed,
                    max_epochs=max_epochs,
                    enable_progress_bar=False,
                    plan_kwargs={"n_epochs_kl_warmup": WARMUP_EPOCHS},
                )
                rows.append((name, cls.__name__, seed, *result[1:]))
                print(*rows[-1], sep="\t", flush=True)
    table = pd.DataFrame(rows, columns=["data", "model", "seed", "seconds", "-ELBO", "distortion"])
    print(f"\nMedian of {len(SEEDS)} seeds, {max_epochs} epochs, nats per held-out cell:")
    columns = ["-ELBO", "distortion"]
    print(table.groupby(["data", "model"])[columns].median().round(1).to_string())


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
