"""Number of 50 dimensions that real counts use, by three rules.

Each data set is also measured with each gene shuffled among cells of the same batch and similar depth. Dimensions can then carry
only the depth. ``python -m benchmarks.collapse_real [data ...] [model ...] [seed ...]`` takes about ten minutes per seed. The default
is all data, all models (SCVI, betavi, and "betavi, genes shuffled") and seeds 0 to 3.
Each entry lists the numbers of all seeds. The rule for depth was chosen on the shuffled genes of seeds 0 and 1.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import scvi
from scipy import sparse

from benchmarks.peers import AS_SCVI, REAL, UNSEEN, quietly
from betavi import BetaVI
from betavi.diagnostics import active_dimensions

if TYPE_CHECKING:
    from collections.abc import Callable

    from anndata import AnnData

N_LATENT, EPOCHS, SEEDS = 50, 100, (0, 1, 2, 3)
BURDA = 0.01
N_DEPTHS = 20
"""Groups of cells with similar totals, within which genes are shuffled."""

DATA = {name: (REAL | UNSEEN)[name] for name in ("kang", "pbmc donor A", "pancreas", "zeisel")}


def shuffled(adata: AnnData, batch_key: str | None, seed: int) -> AnnData:
    """Return counts with all genes shuffled independently."""
    null, rng = adata.copy(), np.random.default_rng(seed)
    counts = null.X.toarray()
    depth = pd.Series(counts.sum(axis=1)).rank(method="first")
    groups = pd.qcut(depth, N_DEPTHS, labels=False).astype(str).to_numpy()
    if batch_key is not None:
        groups = groups + adata.obs[batch_key].astype(str).to_numpy()
    for group in np.unique(groups):
        cells = groups == group
        counts[cells] = rng.permuted(counts[cells], axis=0)
    null.X = sparse.csr_matrix(counts)
    return null


def measure(adata: AnnData, batch_key: str | None, seed: int) -> dict[str, Any]:
    scvi.settings.seed = seed
    BetaVI.setup_anndata(adata, batch_key=batch_key)
    model = BetaVI(adata, n_latent=N_LATENT)
    model.train(max_epochs=EPOCHS, train_size=0.8, enable_progress_bar=False, plan_kwargs=AS_SCVI)
    report = model.diagnose(show_progress=False)
    table = report.dimensions
    return {
        "Burda": int((table["mean_variance"] > BURDA).sum()),
        "0.1 nats": int((table["information"] > 0.1).sum()),
        "used": report.active_dimensions,
        "depth": len(report.depth_dimensions),
        "unclear": len(report.unclear_dimensions),
        "noise": len(report.noise_dimensions),
        "directions": report.spectrum.n_factors,
        "first cause": report.causes[0].name if report.causes else "none",
    }


def measure_scvi(adata: AnnData, batch_key: str | None, seed: int) -> dict[str, Any]:
    """Apply the two rules that need posteriors only to scvi-tools' SCVI."""
    scvi.settings.seed = seed
    scvi.model.SCVI.setup_anndata(adata, batch_key=batch_key)
    model = scvi.model.SCVI(adata, n_latent=N_LATENT)
    model.train(max_epochs=EPOCHS, train_size=0.8, enable_progress_bar=False, plan_kwargs=AS_SCVI)
    loc, variance = model.get_latent_representation(return_dist=True)
    return {
        "Burda": int((loc.var(axis=0) > BURDA).sum()),
        "0.1 nats": active_dimensions(loc, np.sqrt(variance)),
    }


MODELS: dict[str, Callable[[AnnData, str | None, int], dict[str, Any]]] = {
    "SCVI": measure_scvi,
    "betavi": measure,
    "betavi, genes shuffled": lambda adata, key, seed: measure(
        shuffled(adata, key, seed), key, seed
    ),
}


def main(*words: str) -> None:
    quietly()
    seeds = [int(word) for word in words if word.isdigit()] or SEEDS
    rows = []
    models = [word for word in words if word in MODELS] or list(MODELS)
    for name in [name for name in DATA if name in words] or list(DATA):
        data = DATA[name]
        for seed in seeds:
            adata = data.read()
            for model in models:
                found = MODELS[model](adata, data.batch_key, seed)
                rows.append({"data": name, "model": model, **found})
                print(rows[-1], flush=True)
    table = pd.DataFrame(rows).astype(object).fillna("")
    listed = table.groupby(["data", "model"], sort=False).agg(lambda of: ", ".join(map(str, of)))
    print(f"\nNumber of dimensions, of {N_LATENT}, with seeds {list(seeds)}:")
    print(listed.to_string())


if __name__ == "__main__":
    main(*sys.argv[1:])
