"""All likelihoods on the same held-out counts, compared with PCA and an autoencoder.

Run with ``python -m benchmarks.lenses [data set ...]``.
"""

from __future__ import annotations

import logging
import sys

import pandas as pd
import scvi
import torch

from benchmarks.peers import AS_SCVI, REAL, THREADS, UNSEEN
from betavi import BetaVI
from betavi.metrics import compare_likelihoods

DATA = ("pbmc donor A", "pancreas", "zeisel")
TRAINING = {
    "max_epochs": 50, "enable_progress_bar": False, "accelerator": "cpu", "plan_kwargs": AS_SCVI
}  # fmt: skip
N_COMPONENTS = 10
SHOWN = {
    "elbo": 1, "evidence": 1, "distortion": 1, "rate": 1, "detection": 1, "nats_per_count": 3,
    "zero_fraction": 3, "zero_error": 3, "variance_ratio": 2,
}  # fmt: skip


def main(*names: str) -> None:
    logging.disable(logging.INFO)
    torch.set_num_threads(THREADS)
    for name in names or DATA:
        data = (REAL | UNSEEN)[name]
        adata = data.read()
        scvi.settings.seed = 0
        BetaVI.setup_anndata(adata, batch_key=data.batch_key)
        lenses = ("zinb", "nb", "poisson", "lognormal", "normal", "nb_mixture", "bernoulli")
        table = compare_likelihoods(
            BetaVI(adata), lenses, n_components=N_COMPONENTS, **TRAINING
        ).astype(float)
        print(f"\n{name}: {adata.n_vars} genes, nats per held-out cell, one seed")
        with pd.option_context("display.width", 200):
            print(table[list(SHOWN)].round(SHOWN).to_string())


if __name__ == "__main__":
    main(*sys.argv[1:])
