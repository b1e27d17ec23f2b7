"""RNA translated into chromatin, on all 25,734 peaks of 10,309 cells. ``python -m benchmarks.chromatin``.

Each held-out cell's open peaks are ranked by what is predicted of them: the area under the ROC
curve is over all peaks of a cell, averaged over cells. The peak's mean over the other cells is the
baseline that knows nothing of the cell. The last lines are the peak memory of the whole process, and
whether a loss was NaN.
"""

from __future__ import annotations

import logging
import resource
import sys
import time
import warnings
from typing import TYPE_CHECKING

import mudata
import numpy as np
import pandas as pd
import scanpy as sc
import scvi
import torch
from scipy import stats
from sklearn.decomposition import TruncatedSVD
from sklearn.linear_model import RidgeCV
from sklearn.neighbors import NearestNeighbors

from benchmarks.peers import real_folder
from betavi import JointVI

if TYPE_CHECKING:
    from scipy import sparse

HELD_OUT, EPOCHS = 0.1, 20
PCS, NEIGHBOURS, LSI = 50, 50, 50
CELLS_AT_ONCE = 256


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
    """Predict components of the peaks, and the peaks from those."""
    svd = TruncatedSVD(LSI, random_state=0)
    model = RidgeCV(np.logspace(-2, 4, 13)).fit(pcs[seen], svd.fit_transform(peaks[seen]))
    return np.asarray(svd.inverse_transform(model.predict(pcs[cells])))


def neighbours(
    pcs: np.ndarray, peaks: sparse.csr_matrix, seen: np.ndarray, cells: np.ndarray
) -> np.ndarray:
    search = NearestNeighbors(n_neighbors=NEIGHBOURS).fit(pcs[seen])
    around = search.kneighbors(pcs[cells], return_distance=False)
    mean = np.asarray(peaks[seen].mean(axis=0))
    # what no neighbour shows is ranked by its mean
    sums = [np.asarray(peaks[seen[some]].sum(axis=0)).ravel() + mean.ravel() for some in around]
    return np.stack(sums) / (NEIGHBOURS + 1)


def jointvi(
    rna: sc.AnnData, atac: sc.AnnData, seen: np.ndarray, cells: np.ndarray
) -> tuple[np.ndarray, JointVI]:
    """Hide the peaks of some cells, and ask for the probability that they are open."""
    mdata = mudata.MuData({"rna": rna.copy(), "atac": atac[seen].copy()})
    JointVI.setup_mudata(mdata, {"rna": "nb", "atac": "bernoulli"})
    model = JointVI(mdata)
    model.train(EPOCHS, train_size=1.0, enable_progress_bar=False)
    asked = mdata.obs_names.get_indexer(rna.obs_names[cells])
    found = model.get_normalized_accessibility(indices=asked, n_samples=10, batch_size=32)
    return found.to_numpy(), model


def main(seed: int = 0) -> None:
    logging.disable(logging.INFO)
    warnings.filterwarnings("ignore")
    mdata = mudata.read_h5mu(real_folder() / "snareseq_mouse_cortex.h5mu")
    rna, atac = mdata["rna"].copy(), mdata["atac"].copy()
    peaks = (atac.X > 0).astype(np.float32)
    held = np.random.default_rng(seed).random(rna.n_obs) < HELD_OUT
    seen, cells = np.flatnonzero(~held), np.flatnonzero(held)
    pcs = components(rna)
    torch.set_num_threads(1)
    scvi.settings.seed = seed
    start = time.perf_counter()
    predicted, model = jointvi(rna, atac, seen, cells)
    seconds = time.perf_counter() - start
    mean = np.asarray(peaks[seen].mean(axis=0)).ravel()
    methods = {
        "peak mean": np.broadcast_to(mean, predicted.shape),
        "kNN, 50": neighbours(pcs, peaks, seen, cells),
        "ridge on 50 PCs": ridge(pcs, peaks, seen, cells),
        "JointVI": predicted,
    }
    truth = peaks[cells].toarray() > 0
    some = truth.any(axis=1)
    rows = {
        name: {"AUROC": area(scores[some], truth[some]).mean()} for name, scores in methods.items()
    }
    print(pd.DataFrame(rows).T.round(3).to_string())
    losses = model.history["train_loss"].astype(float)
    print(
        f"JointVI: {seconds:.0f} s for {EPOCHS} epochs; loss NaN in {int(losses.isna().sum().iloc[0])}"
    )
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
