"""Does a higher β give latent dimensions that match cell types? ``python -m benchmarks.axes_of_beta [word ...]``.

Each model is trained once on the range of β from 0.1 to 10, and measured at five β on all cells, with
``rate_distortion(labels_key=...)``: rate, ELBO, LMS and MSAS (see ``betavi.metrics.disentanglement``),
and the share of neighbours of the same type for common and rare types. Words are names of data,
decoders and seeds; by default three data sets, both decoders, and seeds 0 to 4.

The gain of a β is the difference to β = 1 of the same seed. *Sure* marks gains with the same sign in all
seeds: with five seeds and no effect, one in 16 would have it.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pandas as pd
import scvi

from benchmarks.disentanglement import DATA, N_LATENT, SEEDS
from benchmarks.peers import processor, quietly
from betavi import BetaVI

NAMES, DECODERS = ("pancreas", "kang_muscat", "zeisel"), ("plain", "additive")
BETAS = (0.1, 0.3, 1.0, 3.0, 10.0)


def curve_of(name: str, decoder: str, seed: int) -> pd.DataFrame:
    """Return the rate-distortion curve of one training."""
    task = DATA[name](seed)
    scvi.settings.seed = seed
    BetaVI.setup_anndata(task.adata, batch_key=task.batch_key)
    options: dict[str, Any] = {"decoder": decoder, "gene_likelihood": "nb", "n_latent": N_LATENT}
    model = BetaVI(task.adata, beta=(BETAS[0], BETAS[-1]), **options)
    model.train(enable_progress_bar=False)
    every = np.arange(task.adata.n_obs)
    found = model.rate_distortion(
        BETAS, indices=every, labels_key=task.labels_key, n_samples=1, show_progress=False
    )
    return found.assign(data=name, decoder=decoder, seed=seed)


def print_gains(curves: pd.DataFrame) -> None:
    """Print the differences in LMS to β = 1 of the same seed."""
    scores = curves.pivot_table("LMS", ["data", "decoder", "seed"], "beta")
    gains = scores.sub(scores[1.0], axis=0).drop(columns=1.0)
    by_beta = gains.melt(ignore_index=False).groupby(["data", "decoder", "beta"])["value"]
    table = by_beta.agg(["min", "median", "max"])
    table["sure"] = (table["min"] > 0) | (table["max"] < 0)
    print(f"\nGain in LMS over beta=1 of the same seed:\n{table.round(3).to_string()}")


def main(*words: str) -> None:
    quietly(1)
    seeds = [int(word) for word in words if word.isdigit()] or SEEDS
    print(processor(), f"one thread, scvi-tools {scvi.__version__}, {N_LATENT} dimensions")
    curves = []
    for name in [name for name in NAMES if name in words] or NAMES:
        for decoder in [word for word in DECODERS if word in words] or DECODERS:
            for seed in seeds:
                curves.append(curve_of(name, decoder, seed))
                print(curves[-1].round(3).to_string(), flush=True)
    table = pd.concat(curves)
    columns = ["rate", "elbo", "LMS", "MSAS", "MSGS", "agreement_common", "agreement_rare"]
    medians = table.groupby(["data", "decoder", "beta"], sort=False)[columns].median()
    print(f"\nMedians over seeds {list(seeds)}:\n{medians.round(3).to_string()}")
    print_gains(table)


if __name__ == "__main__":
    main(*sys.argv[1:])
