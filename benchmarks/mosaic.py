"""Cells with RNA only, protein only and both, in one latent space. ``python -m benchmarks.mosaic``.

Labels of paired cells are transferred to the other cells by nearest neighbours. The mixing of
batches is the entropy of the batches among the neighbours of a cell, 1 if all are equally frequent.
The baseline is PCA of both assays, with missing values imputed by ridge regression.
"""

from __future__ import annotations

import logging
import sys
import time
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import scanpy as sc
import scvi
import torch
from scipy import stats
from sklearn.decomposition import PCA
from sklearn.linear_model import RidgeCV
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors

from betavi import JointVI
from betavi.datasets import pbmc_mosaic

if TYPE_CHECKING:
    from collections.abc import Callable

    from anndata import AnnData
    from mudata import MuData

N_NEIGHBOURS, N_MIXED = 15, 50
PCS, EPOCHS = 30, 100


def log_normalised(adata: AnnData) -> np.ndarray:
    """Return log-normalised values, standardised within each batch."""
    normal = adata.copy()
    sc.pp.normalize_total(normal)
    sc.pp.log1p(normal)
    dense = normal.X.toarray() if hasattr(normal.X, "toarray") else normal.X
    scaled = np.zeros(dense.shape)
    for cells in adata.obs.groupby("batch", observed=True).indices.values():
        scaled[cells] = np.nan_to_num(stats.zscore(dense[cells], axis=0))
    return scaled


def ridge_filled(mdata: MuData, _seed: int) -> np.ndarray:
    """Impute each assay from the other, and return principal components of both."""
    values = {}
    for name in mdata.mod:
        full = np.full((mdata.n_obs, mdata[name].n_vars), np.nan)
        cells = mdata.obs_names.get_indexer(mdata[name].obs_names)
        full[cells] = log_normalised(mdata[name])
        values[name] = full
    rna, adt = values["rna"], values["adt"]
    has_rna, has_adt = (~np.isnan(values[name][:, 0]) for name in ("rna", "adt"))
    paired = has_rna & has_adt
    for one, other, missing in ((rna, adt, ~has_adt), (adt, rna, ~has_rna)):
        model = RidgeCV(np.logspace(0, 6, 13)).fit(one[paired], other[paired])
        other[missing] = model.predict(one[missing])
    blocks = [block / np.sqrt(np.square(block).sum(axis=1).mean()) for block in (rna, adt)]
    return PCA(PCS, random_state=0).fit_transform(np.hstack(blocks))


def jointvi(**kwargs: Any) -> Callable[[MuData, int], np.ndarray]:
    def embed(mdata: MuData, seed: int) -> np.ndarray:
        scvi.settings.seed = seed
        JointVI.setup_mudata(mdata, {"rna": "nb", "adt": "nb_mixture"}, batch_key="batch")
        torch.set_num_threads(1)
        model = JointVI(mdata, **kwargs)
        model.train(EPOCHS, train_size=1.0, enable_progress_bar=False)
        return model.get_latent_representation()

    return embed


METHODS: dict[str, Callable[[MuData, int], np.ndarray]] = {
    "ridge fill and PCA": ridge_filled,
    **{
        f"JointVI, {fusion}": jointvi(fusion=fusion) for fusion in ("mvtcae", "mopoe", "moe", "poe")
    },
    "JointVI, mvtcae, beta 2": jointvi(beta=2.0),
}


def score(mdata: MuData, latent: np.ndarray) -> dict[str, float]:
    has_rna, has_adt = (mdata.obsmap[name] > 0 for name in ("rna", "adt"))
    paired, labels = has_rna & has_adt, mdata.obs["celltype"].to_numpy()
    guess = KNeighborsClassifier(N_NEIGHBOURS).fit(latent[paired], labels[paired])
    found = {
        f"labels, {name} only": float(guess.score(latent[cells], labels[cells]))
        for name, cells in (("RNA", has_rna & ~has_adt), ("protein", has_adt & ~has_rna))
    }
    codes = mdata.obs["batch"].astype("category").cat.codes.to_numpy()
    search = NearestNeighbors(n_neighbors=N_MIXED).fit(latent)
    around = codes[search.kneighbors(return_distance=False)]
    shares = np.stack([(around == code).mean(axis=1) for code in np.unique(codes)])
    entropy = stats.entropy(shares) / np.log(len(shares))
    return found | {"batch entropy": float(entropy.mean())}


def main(*seeds: int) -> None:
    logging.disable(logging.INFO)
    warnings.filterwarnings("ignore")
    rows = []
    for seed in seeds or range(3):
        for name, embed in METHODS.items():
            mdata = pbmc_mosaic()
            start = time.perf_counter()
            latent = embed(mdata, seed)
            seconds = time.perf_counter() - start
            rows.append({"method": name, "seed": seed, **score(mdata, latent), "seconds": seconds})
            print(*rows[-1].values(), sep="\t", flush=True)
    table = pd.DataFrame(rows).groupby("method", sort=False).mean().drop(columns="seed")
    print(f"\nMean over seeds:\n{table.round(3).to_string()}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
