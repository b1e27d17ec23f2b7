"""Coverage of the 90 % intervals of translated proteins, where they hold and where they cannot.

The proteins of some cells are hidden: of random cells, of a whole batch, or of a whole cell type. The
table has the share of hidden values inside the interval, over all proteins, with the lowest and the
highest protein, and the mean width on the scale of log(1 + counts). *own* are the intervals of the
model, *calibrated* those of ``translate()``, and *ridge* those of ridge regression on 50 principal
components, calibrated with the absolute errors of the same number of held-out cells. *unlike* is the
share of hidden cells that ``translate()`` marks as unlike the measured cells.
``python -m benchmarks.intervals [set ...] [seed ...]`` takes about 40 minutes for three seeds.
"""

from __future__ import annotations

import sys
import warnings
from typing import TYPE_CHECKING, Any, NamedTuple

import mudata
import numpy as np
import pandas as pd
import scanpy as sc
import scvi
from sklearn.decomposition import PCA
from sklearn.linear_model import RidgeCV

from benchmarks.middles import logs
from benchmarks.peers import quietly, real_folder
from betavi import JointVI
from betavi.datasets import pbmc_mosaic, simulate_multiome
from betavi.diagnostics import is_inside, thin

if TYPE_CHECKING:
    from collections.abc import Callable

    from anndata import AnnData

HIDDEN, DRAWS, PCS, HELD_OUT = 0.3, 100, 50, 0.1
SEEDS, EPOCHS = (0, 1, 2), 100
CHOSEN = "pbmc10k"
"""Data set that was used to choose the method. The others had no part in the choice."""


class Cells(NamedTuple):
    """Cells with both assays, and their batch and type."""

    rna: AnnData
    protein: AnnData
    batch: np.ndarray
    type: np.ndarray


def pbmc10k() -> Cells:
    mdata = mudata.read_h5mu(real_folder() / "pbmc10k_6855x4000.h5mu")
    rna, protein = mdata["rna"].copy(), mdata["prot"].copy()
    types = mdata.obs if "cell_type_l1" in mdata.obs else rna.obs
    types = types["cell_type_l1"].astype(str).to_numpy()
    sc.pp.highly_variable_genes(rna, n_top_genes=1500, flavor="seurat_v3", subset=True)
    some = np.sort(np.random.default_rng(1).permutation(rna.n_obs)[:3000])
    return Cells(rna[some].copy(), protein[some].copy(), np.full(3000, "one"), types[some])


def mosaic() -> Cells:
    mdata = pbmc_mosaic()
    (name,) = set(mdata.mod) - {"rna"}
    both = mdata["rna"].obs_names.intersection(mdata[name].obs_names)
    obs = mdata.obs.loc[both].astype(str)
    parts = mdata["rna"][both].copy(), mdata[name][both].copy()
    return Cells(*parts, obs["batch"].to_numpy(), obs["celltype"].to_numpy())


def simulated(n_cells: int, n_proteins: int, kept: float, seed: int) -> Callable[[], Cells]:
    """Return a function that simulates cells of three batches. ``kept`` thins the proteins."""

    def make() -> Cells:
        mdata = simulate_multiome(
            n_cells, n_genes=300, n_proteins=n_proteins, n_peaks=0, n_batches=3, seed=seed
        )
        protein = mdata["adt"].copy()
        if kept < 1:
            protein.X = thin(protein.X, 1 - kept, seed=0).kept
        obs = mdata["rna"].obs if "batch" in mdata["rna"].obs else mdata.obs
        columns = [obs[name].astype(str).to_numpy() for name in ("batch", "cell_type")]
        return Cells(mdata["rna"].copy(), protein, *columns)

    return make


SETS: dict[str, Callable[[], Cells]] = {
    "pbmc10k": pbmc10k,
    "mosaic": mosaic,
    "simulated, 500 cells": simulated(500, 15, 1.0, 1),
    "simulated, 1,500 cells": simulated(1500, 15, 1.0, 2),
    "simulated, 6,000 cells": simulated(6000, 15, 1.0, 3),
    "simulated, 500 cells, 60 shallow proteins": simulated(500, 60, 0.2, 4),
    "simulated, 1,500 cells, 60 shallow proteins": simulated(1500, 60, 0.2, 5),
    "simulated, 6,000 cells, 60 shallow proteins": simulated(6000, 60, 0.2, 6),
}


def hidden_by(cells: Cells, how: str, seed: int) -> np.ndarray | None:
    """Return a mask of the cells whose proteins are hidden."""
    if how == "random cells":
        return np.random.default_rng(seed).random(len(cells.type)) < HIDDEN
    values = cells.batch if how == "a batch" else cells.type
    names, counts = np.unique(values, return_counts=True)
    common = names[counts >= 0.05 * len(values)]
    return None if len(common) < 2 else values == common[seed % len(common)]


def _log_counts(adata: AnnData) -> np.ndarray:
    counts = adata.X.toarray() if hasattr(adata.X, "toarray") else adata.X
    return np.log1p(np.asarray(counts, dtype=float))


def row(truth: np.ndarray, lower: np.ndarray, upper: np.ndarray, name: str) -> dict[str, float]:
    inside = is_inside(truth, lower, upper)
    of_features = inside.mean(axis=0)
    return {
        f"{name}": inside.mean(), f"{name}, lowest": of_features.min(),
        f"{name}, highest": of_features.max(), f"{name}, width": (upper - lower).mean(),
    }  # fmt: skip


def of_model(cells: Cells, hidden: np.ndarray, seed: int) -> dict[str, float]:
    """Return coverage and width of the model's intervals, before and after calibration."""
    scvi.settings.seed = seed
    mdata = mudata.MuData({"rna": cells.rna.copy(), "prot": cells.protein[~hidden].copy()})
    mdata.obs["batch"] = pd.Series(cells.batch, cells.rna.obs_names).reindex(mdata.obs_names)
    JointVI.setup_mudata(mdata, {"rna": "nb", "prot": "nb_mixture"}, batch_key="batch")
    model = JointVI(mdata)
    model.train(max_epochs=EPOCHS, enable_progress_bar=False)
    of_hidden = mdata.obs_names.get_indexer(cells.rna.obs_names[hidden])
    options = {"n_samples": DRAWS, "scale": "log1p", "show_progress": False}
    truth, found = _log_counts(cells.protein[hidden]), {}
    for name, calibrate in (("own", False), ("calibrated", True)):
        scvi.settings.seed = seed
        part = model.translate("rna", "prot", indices=of_hidden, calibrate=calibrate, **options)
        found |= row(truth, part.layers["lower"], part.layers["upper"], name)
    return found | {"unlike": 1 - part.obs["is_calibrated"].mean()}


def of_ridge(cells: Cells, hidden: np.ndarray, seed: int) -> dict[str, float]:
    """Return coverage and width of ridge regression, calibrated by split conformal prediction."""
    pcs = PCA(PCS, random_state=0).fit_transform(logs(cells.rna.X))
    values, seen = _log_counts(cells.protein), np.flatnonzero(~hidden)
    seen = np.random.default_rng(seed).permutation(seen)
    n_held = int(HELD_OUT * len(cells.type) * (~hidden).mean())
    held, fitted = seen[:n_held], seen[n_held:]
    ridge = RidgeCV(np.logspace(-2, 4, 13), alpha_per_target=True).fit(pcs[fitted], values[fitted])
    errors = np.sort(np.abs(values[held] - ridge.predict(pcs[held])), axis=0)
    half = errors[min(int(np.ceil(0.9 * (n_held + 1))), n_held) - 1]
    mean = ridge.predict(pcs[hidden])
    found = row(values[hidden], mean - half, mean + half, "ridge")
    return {name: value for name, value in found.items() if name in ("ridge", "ridge, width")}


def main(*words: str) -> None:
    quietly(1)
    warnings.filterwarnings("ignore")
    seeds = [int(word) for word in words if word.isdigit()] or SEEDS
    names = [name for name in SETS if any(word in name for word in words)] or list(SETS)
    rows: list[dict[str, Any]] = []
    for name in names:
        cells = SETS[name]()
        for how in ("random cells", "a batch", "a type"):
            for seed in seeds:
                hidden = hidden_by(cells, how, seed)
                if hidden is None:
                    continue
                found = of_model(cells, hidden, seed) | of_ridge(cells, hidden, seed)
                rows.append({"data": name, "hidden": how, **found})
                print(rows[-1], flush=True)
    table = pd.DataFrame(rows).groupby(["data", "hidden"], sort=False).median()
    print(f"\nMedians over seeds {list(seeds)}; {CHOSEN} was used to choose the method:")
    print(table.round(3).to_string())


if __name__ == "__main__":
    main(*sys.argv[1:])
