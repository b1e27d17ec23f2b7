"""Translation of RNA into chromatin accessibility, on 25,734 peaks of 10,309 cells.

``python -m benchmarks.chromatin [n_peaks]`` uses all peaks, or those that are open in most cells.
MULTIVI runs with ``n_peaks`` only, because one epoch of all peaks takes it most of a minute. It has
its default settings and its own early stopping.

The score is the area under the ROC curve of open peaks over all peaks of a held-out cell, averaged
over cells. The baseline predicts the mean of each peak over the training cells. The script also
prints the peak memory of the process, and the number of epochs with a loss of NaN.
"""

from __future__ import annotations

import logging
import resource
import sys
import time
import warnings
from typing import TYPE_CHECKING, Any

import mudata
import numpy as np
import pandas as pd
import scanpy as sc
import scvi
import torch
from scipy import sparse, stats
from scvi.model import MULTIVI
from sklearn.decomposition import TruncatedSVD
from sklearn.linear_model import RidgeCV
from sklearn.neighbors import NearestNeighbors

from benchmarks.peers import real_folder
from betavi import JointVI

if TYPE_CHECKING:
    from collections.abc import Callable

HELD_OUT, EPOCHS = 0.1, 20
PCS, NEIGHBOURS, LSI = 50, 50, 50
LOSSES = "train_loss", "train_loss_epoch"
"""Names of the training loss in different versions of scvi-tools."""


def area(scores: np.ndarray, is_open: np.ndarray) -> np.ndarray:
    """Return the area under the ROC curve of each cell, ``(n_cells,)``."""
    ranks = stats.rankdata(scores, axis=1)
    n_open = is_open.sum(axis=1)
    n_shut = is_open.shape[1] - n_open
    beaten = (ranks * is_open).sum(axis=1) - n_open * (n_open + 1) / 2
    return np.asarray(beaten / np.maximum(n_open * n_shut, 1))


def components(rna: sc.AnnData) -> np.ndarray:
    normal = rna.copy()
    sc.pp.normalize_total(normal, target_sum=1e4)
    sc.pp.log1p(normal)
    sc.pp.pca(normal, n_comps=PCS)
    return np.asarray(normal.obsm["X_pca"])


def ridge(
    pcs: np.ndarray, peaks: sparse.csr_matrix, seen: np.ndarray, cells: np.ndarray
) -> np.ndarray:
    """Predict the peaks through their components, by ridge regression."""
    svd = TruncatedSVD(LSI, random_state=0)
    model = RidgeCV(np.logspace(-2, 4, 13)).fit(pcs[seen], svd.fit_transform(peaks[seen]))
    return np.asarray(svd.inverse_transform(model.predict(pcs[cells])))


def neighbours(
    pcs: np.ndarray, peaks: sparse.csr_matrix, seen: np.ndarray, cells: np.ndarray
) -> np.ndarray:
    search = NearestNeighbors(n_neighbors=NEIGHBOURS).fit(pcs[seen])
    around = search.kneighbors(pcs[cells], return_distance=False)
    mean = np.asarray(peaks[seen].mean(axis=0))
    # peaks that are closed in all neighbours are ranked by their mean
    sums = [np.asarray(peaks[seen[some]].sum(axis=0)).ravel() + mean.ravel() for some in around]
    return np.stack(sums) / (NEIGHBOURS + 1)


def jointvi(
    rna: sc.AnnData, atac: sc.AnnData, seen: np.ndarray, cells: np.ndarray
) -> tuple[np.ndarray, JointVI]:
    """Hide the peaks of some cells, and predict the probability that they are open."""
    mdata = mudata.MuData({"rna": rna.copy(), "atac": atac[seen].copy()})
    JointVI.setup_mudata(mdata, {"rna": "nb", "atac": "bernoulli"})
    model = JointVI(mdata)
    model.train(EPOCHS, train_size=1.0, enable_progress_bar=False)
    indices = mdata.obs_names.get_indexer(rna.obs_names[cells])
    found = model.get_normalized_accessibility(indices=indices, n_samples=10, batch_size=32)
    return found.to_numpy(), model


def multivi(rna: sc.AnnData, atac: sc.AnnData, cells: np.ndarray) -> tuple[np.ndarray, MULTIVI]:
    """Pass cells without peaks as MULTIVI requires: zeros, in a batch of cells with RNA only."""
    hidden = atac.copy()
    shown = np.ones(atac.n_obs, np.float32)
    shown[cells] = 0
    hidden.X = (sparse.diags(shown) @ atac.X).tocsr()
    mdata = mudata.MuData({"rna": rna.copy(), "atac": hidden})
    mdata.obs["assays"] = np.where(shown > 0, "paired", "expression")
    MULTIVI.setup_mudata(
        mdata, batch_key="assays", modalities={"rna_layer": "rna", "atac_layer": "atac"}
    )
    model = MULTIVI(mdata, n_genes=rna.n_vars, n_regions=atac.n_vars)
    model.train(accelerator="cpu", enable_progress_bar=False)
    found = model.get_normalized_accessibility(
        indices=cells, transform_batch="paired", normalize_regions=True, return_numpy=True
    )
    return np.asarray(found), model


def timed(predict: Callable[[], tuple[np.ndarray, Any]]) -> np.ndarray:
    """Return the prediction, and print its time and the number of losses that are NaN."""
    start = time.perf_counter()
    predicted, model = predict()
    seconds = time.perf_counter() - start
    losses = next(model.history[key] for key in LOSSES if key in model.history).astype(float)
    lost = int(losses.isna().sum().iloc[0])
    name = type(model).__name__
    print(f"{name}: {seconds:.0f} s for {len(losses)} epochs; loss NaN in {lost}", flush=True)
    return predicted


def main(n_peaks: int | None = None, seed: int = 0) -> None:
    logging.disable(logging.INFO)
    warnings.filterwarnings("ignore")
    mdata = mudata.read_h5mu(real_folder() / "snareseq_mouse_cortex.h5mu")
    rna, atac = mdata["rna"].copy(), mdata["atac"].copy()
    if n_peaks is not None:
        often = np.asarray((atac.X > 0).sum(axis=0)).ravel()
        atac = atac[:, np.sort(np.argsort(-often, kind="stable")[:n_peaks])].copy()
    peaks = (atac.X > 0).astype(np.float32)
    held = np.random.default_rng(seed).random(rna.n_obs) < HELD_OUT
    seen, cells = np.flatnonzero(~held), np.flatnonzero(held)
    pcs = components(rna)
    torch.set_num_threads(1)
    scvi.settings.seed = seed
    predicted = timed(lambda: jointvi(rna, atac, seen, cells))
    mean = np.asarray(peaks[seen].mean(axis=0)).ravel()
    methods = {
        "peak mean": np.broadcast_to(mean, predicted.shape),
        "kNN, 50": neighbours(pcs, peaks, seen, cells),
        "ridge on 50 PCs": ridge(pcs, peaks, seen, cells),
        "JointVI": predicted,
    }
    if n_peaks is not None:
        scvi.settings.seed = seed
        methods["MULTIVI"] = timed(lambda: multivi(rna, atac, cells))
    truth = peaks[cells].toarray() > 0
    some = truth.any(axis=1)
    rows = {
        name: {"AUROC": area(scores[some], truth[some]).mean()} for name, scores in methods.items()
    }
    print(pd.DataFrame(rows).T.round(3).to_string())
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
