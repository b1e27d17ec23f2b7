"""Denoising by betavi and its peers, scored on the same held-out molecules.

Run with ``python -m benchmarks.denoising [data set ...]``. MAGIC is left out without its own
environment ``.venv-magic``, which ``make bench`` creates.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import scanpy as sc
import scvi
from scipy import sparse
from sklearn.decomposition import PCA
from sklearn.linear_model import RidgeCV
from sklearn.metrics import r2_score
from sklearn.model_selection import KFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks.parallel import measured
from benchmarks.peers import AS_SCVI, REAL, UNSEEN, DataSet
from betavi import BetaVI
from betavi.diagnostics import (
    BASELINES,
    HeldOutMolecules,
    Thinned,
    log_normalised,
    report_denoising,
    thin,
)

DATA = ("pbmc donor A", "kang", "pancreas", "RNAmix")
SEEDS = (0, 1, 2)
GENES = 2000
TRAINING = {
    "max_epochs": 100, "enable_progress_bar": False, "accelerator": "cpu", "plan_kwargs": AS_SCVI
}  # fmt: skip
MAGIC = Path(".venv-magic/bin/python")
PROPORTIONS = ("H2228_prop", "H1975_prop", "HCC827_prop")
VARIANTS: dict[str, dict[str, Any]] = {
    "zinb": {"gene_likelihood": "zinb"},
    "nb": {"gene_likelihood": "nb"},
    # chosen on RNAmix, by held-out molecules and by mixing proportions
    "nb, β = 3, vamp": {"gene_likelihood": "nb", "beta": 3.0, "prior": "vamp"},
}
ESTIMATES = ("posterior", "mean")


def read(data: DataSet) -> anndata.AnnData:
    adata = data.read()
    if adata.n_vars > GENES:
        sc.pp.highly_variable_genes(adata, n_top_genes=GENES, flavor="seurat_v3", subset=True)
    return adata


def trained(cls: type, thinned: Thinned, adata: anndata.AnnData, key: Any, **arguments: Any) -> Any:
    kept = anndata.AnnData(thinned.kept.copy(), obs=adata.obs.copy(), var=adata.var[[]].copy())
    scvi.settings.seed = 0
    cls.setup_anndata(kept, batch_key=key)
    model = cls(kept, **arguments)
    model.train(**TRAINING)
    return model


def of_betavi(thinned: Thinned, adata: anndata.AnnData, key: Any) -> dict[str, np.ndarray]:
    found = {}
    for variant, arguments in VARIANTS.items():
        model = trained(BetaVI, thinned, adata, key, **arguments)
        for estimate in ESTIMATES:
            model.denoise(estimate=estimate, layer_added=estimate, show_progress=False)
            found[f"betavi {variant}, {estimate}"] = model.adata.layers[estimate]
    return found


def of_scvi(thinned: Thinned, adata: anndata.AnnData, key: Any) -> dict[str, np.ndarray]:
    """Return the usual estimates of SCVI, and for zinb also the mean with dropout."""
    found = {}
    for likelihood in ("zinb", "nb"):
        model = trained(scvi.model.SCVI, thinned, adata, key, gene_likelihood=likelihood)
        given = model.get_likelihood_parameters(n_samples=1)
        found[f"scVI {likelihood}"] = given["mean"]
        if likelihood == "zinb":
            found["scVI zinb, with its dropout"] = given["mean"] * (1 - given["dropout"])
    return found


def of_magic(counts: sparse.csr_matrix) -> dict[str, np.ndarray]:
    if not MAGIC.exists():
        return {}
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        sparse.save_npz(f"{folder}/counts.npz", counts)
        for transform, name in (("linear", "MAGIC, linear"), ("sqrt", "MAGIC, square root")):
            out = f"{folder}/{transform}.npy"
            script = Path(__file__).with_name("magic_rows.py")
            subprocess.run([MAGIC, script, f"{folder}/counts.npz", out, transform], check=True)
            found[name] = np.load(out)
    return found


def proportions_found(expected: np.ndarray, adata: anndata.AnnData) -> tuple[float, float]:
    """Return R2 of mixing proportions, predicted by ridge regression on principal components.

    The first is for 10-fold cross-validation over cells, the second for held-out protocols.
    """
    truth = adata.obs[list(PROPORTIONS)].to_numpy(dtype=float)
    logs = log_normalised(expected.astype(np.float64))
    reader = make_pipeline(
        PCA(20, random_state=0), StandardScaler(), RidgeCV(np.logspace(-2, 4, 13))
    )
    folds = KFold(10, shuffle=True, random_state=0)
    among = r2_score(truth, cross_val_predict(reader, logs, truth, cv=folds))
    batch = adata.obs["batch"].to_numpy()
    across = [
        r2_score(
            truth[batch == one],
            reader.fit(logs[batch != one], truth[batch != one]).predict(logs[batch == one]),
        )
        for one in np.unique(batch)
    ]
    return among, float(np.mean(across))


def measure(name: str, seed: int) -> pd.DataFrame:
    data = (REAL | UNSEEN)[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        adata = read(data)
        thinned = thin(adata.X, seed=seed)
        held_out = HeldOutMolecules(thinned)
        expected = {
            key: np.concatenate(list(rows(thinned.kept, 0))) for key, rows in BASELINES.items()
        }
        expected |= of_magic(thinned.kept)
        expected |= of_scvi(thinned, adata, data.batch_key)
        expected |= of_betavi(thinned, adata, data.batch_key)
        scores = {key: held_out.score([values]) for key, values in expected.items()}
    report = report_denoising(
        held_out, scores, [f"betavi {v}, {e}" for v in VARIANTS for e in ESTIMATES], adata.var_names
    )
    table = report.methods
    table["genes worse than their mean"] = (report.explained.dropna() < 0).mean()
    if name == "RNAmix":
        for key, values in expected.items():
            table.loc[key, ["R2", "R2, other protocol"]] = proportions_found(values, adata)
    table["data"], table["seed"] = name, seed
    return table


def main(*names: str) -> None:
    tasks = [(name, seed) for name in names or DATA for seed in SEEDS]
    tables = pd.concat(measured(measure, tasks)).rename_axis("method").reset_index()
    for name, table in tables.groupby("data", sort=False):
        print(
            f"\n{name}: medians of {table.seed.nunique()} splits of the molecules. Lower is better, "
            "except for explained and R2."
        )
        shown = table.drop(columns=["data", "seed"]).groupby("method").median()
        with pd.option_context("display.width", 220, "display.max_columns", 20):
            print(shown.sort_values("poisson_loss").round(5).dropna(axis=1).to_string())


if __name__ == "__main__":
    main(*sys.argv[1:])
