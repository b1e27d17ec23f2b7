"""Start of training: held-out ELBO from random weights, and from moments of the data.

Run with ``python -m benchmarks.start [epochs]``.
"""

from __future__ import annotations

import sys

import pandas as pd

from benchmarks.peers import AS_SCVI, REAL, fit
from betavi import BetaVI
from betavi.data import start_values

STARTS = ("random", 1.0, 0.6, 0.4, 0.2, 0.1)


def main(max_epochs: int = 20) -> None:
    columns = {}
    for name, data in REAL.items():
        adata = data.read()
        column = columns[name] = {}
        for start in STARTS:
            is_random = start == "random"
            if not is_random:
                start_values.UNEXPLAINED = start
            result = fit(
                BetaVI,
                adata,
                data.batch_key,
                seed=0,
                max_epochs=max_epochs,
                enable_progress_bar=False,
                plan_kwargs={"n_epochs_kl_warmup": 10, "from_moments": not is_random, **AS_SCVI},
            )
            column[start] = result.negative_elbo
            print(name, start, result.negative_elbo, sep="\t", flush=True)
    print(f"\n-ELBO, nats per held-out cell, {max_epochs} epochs, by unexplained variance share:")
    print(pd.DataFrame(columns).round(1).to_string())


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
