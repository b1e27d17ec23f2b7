"""Held-out ELBO of BetaVI and SCVI: same cells, split, seed and number of epochs.

Both models run with the same schedules, and with their defaults. BetaVI also runs with products in
bfloat16. Run with ``make bench``, or ``python -m benchmarks.held_out_elbo [data set ...]``.
"""

from __future__ import annotations

import sys
from typing import Any

import pandas as pd
import scvi

from benchmarks.peers import AS_SCVI, REAL, UNSEEN, fit
from betavi import BetaVI

SEEDS = (0, 1, 2)
MAX_EPOCHS = 50
SAME = {"plan_kwargs": {"n_epochs_kl_warmup": 10, **AS_SCVI}}
MODELS: dict[str, tuple[type, dict[str, Any]]] = {
    "BetaVI, same schedules": (BetaVI, SAME),
    "SCVI, same schedules": (scvi.model.SCVI, SAME),
    "BetaVI": (BetaVI, {}),
    "BetaVI, bf16-mixed": (BetaVI, {"precision": "bf16-mixed"}),
    "SCVI": (scvi.model.SCVI, {}),
}


def main(*names: str) -> None:
    rows = []
    data_sets = REAL | UNSEEN
    for name in names or data_sets:
        data = data_sets[name]
        adata = data.read()
        for seed in SEEDS:
            for model, (cls, options) in MODELS.items():
                options = {"max_epochs": MAX_EPOCHS, "enable_progress_bar": False} | options
                result = fit(cls, adata, data.batch_key, seed, **options)
                rows.append((name, model, seed, *result[1:]))
                print(*rows[-1], sep="\t", flush=True)
    table = pd.DataFrame(rows, columns=["data", "model", "seed", "seconds", "-ELBO", "distortion"])
    print(f"\nNats per held-out cell, median of {len(SEEDS)} seeds, {MAX_EPOCHS} epochs:")
    columns = ["-ELBO", "distortion"]
    print(table.groupby(["data", "model"])[columns].median().round(1).to_string())


if __name__ == "__main__":
    main(*sys.argv[1:])
