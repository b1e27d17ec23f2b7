"""Calibration of the p-values of support(), and detection of outlying cells.

The first table has cells that neither training nor calibration has seen, with all, a half and a
quarter of their molecules. At 0.05, one in twenty should be called. The second table tests whether
outlying cells are decoded worse, measured on held-out molecules. The third table has the area under
the ROC curve of each cell type that was left out of training, against held-out cells, compared with
PCA reconstruction and the distance to measured cells.
``python -m benchmarks.support`` takes about twenty minutes.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import anndata
import numpy as np
import pandas as pd
import scvi
from sklearn.decomposition import PCA
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import KNeighborsRegressor, NearestNeighbors

from benchmarks.middles import logs
from benchmarks.peers import quietly
from benchmarks.realism import read
from betavi import BetaVI
from betavi.diagnostics import thin

if TYPE_CHECKING:
    from benchmarks.realism import Set

SEEDS = range(6)
KEPT = (1.0, 0.5, 0.25)
LEVEL = 0.05
FEW = (30, 50, 80)
SPLIT = {"train_size": 0.7, "validation_size": 0.15}
N_COMPONENTS, LIKE_DEPTH = 20, 50
QUIET = {"show_progress": False}


def trained(data: Set, seed: int, split: dict[str, float] | None = None) -> BetaVI:
    scvi.settings.seed = seed
    adata = data.adata.copy()
    BetaVI.setup_anndata(adata, batch_key=data.batch_key)
    model = BetaVI(adata)
    model.train(accelerator="cpu", enable_progress_bar=False, **split or SPLIT)
    return model


def few_held_out(name: str) -> pd.Series:
    """Return the share of test cells that are called, by the number of held-out cells."""
    data, called = read(name), {}
    for n_held_out in FEW:
        shares = []
        for seed in SEEDS:
            split = {"train_size": 0.7, "validation_size": n_held_out / data.adata.n_obs}
            model = trained(data, seed, split)
            table = model.support(indices=model.test_indices, **QUIET)
            shares.append((table["p_value"] < LEVEL).mean())
        called[n_held_out] = np.mean(shares)
    return pd.Series(called)


def thinned(adata: anndata.AnnData, kept: float) -> anndata.AnnData:
    counts = adata.X if kept == 1 else thin(adata.X, 1 - kept, seed=0).kept
    return anndata.AnnData(counts, obs=adata.obs.copy(), var=adata.var[[]])


def calibration(names: tuple[str, ...]) -> pd.DataFrame:
    """Return the share of test cells that are called, by data set and share of molecules.

    Further columns are the shallowest fifth of the cells, and latent positions.
    """
    rows = {}
    for name in names:
        data, called = read(name), []
        for seed in SEEDS:
            model = trained(data, seed)
            some = model.adata[model.test_indices].copy()
            tables = [model.support(thinned(some, kept), **QUIET) for kept in KEPT]
            depth = _depth(some.X)
            tables.append(tables[0][depth <= np.quantile(depth, 0.2)])
            positions = model.get_latent_representation(indices=model.test_indices)
            tables.append(model.support(latent=positions))
            called.append([(table["p_value"] < LEVEL).mean() for table in tables])
        rows[name] = [len(some), *np.mean(called, axis=0)]
        print(name, np.round(called, 3).tolist(), flush=True)
    shares = [f"{kept:.0%} of the molecules" for kept in KEPT]
    columns = ["cells", *shares, "shallowest fifth", "positions"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns)


def like_depth(known: tuple[np.ndarray, np.ndarray], values: np.ndarray, depth: np.ndarray) -> Any:
    """Return how much larger values are than those of known cells of like depth."""
    usual = KNeighborsRegressor(LIKE_DEPTH).fit(known[1][:, None], known[0])
    return values - usual.predict(depth[:, None])


def peers(model: BetaVI, out: anndata.AnnData) -> dict[str, float]:
    """Return areas of PCA's reconstruction error and of the distance to measured cells."""
    parts = {
        "seen": model.adata.X[model.train_indices],
        "known": model.adata.X[model.validation_indices],
        "usual": model.adata.X[model.test_indices],
        "out": out.X,
    }
    log, depth = ({name: f(x) for name, x in parts.items()} for f in (logs, _depth))
    pca = PCA(N_COMPONENTS, random_state=0).fit(log["seen"])
    places = {name: pca.transform(x) for name, x in log.items()}
    near = NearestNeighbors(n_neighbors=15).fit(places["seen"])
    scores = {
        "PCA": {n: ((log[n] - pca.inverse_transform(places[n])) ** 2).sum(axis=1) for n in log},
        "kNN": {n: near.kneighbors(places[n])[0].mean(axis=1) for n in log},
    }
    found = {}
    for method, score in scores.items():
        known = score["known"], depth["known"]
        usual, outlying = (like_depth(known, score[name], depth[name]) for name in ("usual", "out"))
        found[method] = area(usual, outlying)
    return found


def _depth(counts: Any) -> np.ndarray:
    return np.log1p(np.asarray(counts.sum(axis=1)).ravel())


def area(usual: np.ndarray, outlying: np.ndarray) -> float:
    labels = np.repeat([0, 1], [len(usual), len(outlying)])
    return float(roc_auc_score(labels, np.concatenate([usual, outlying])))


def unseen_types(name: str) -> pd.DataFrame:
    """Return areas under the ROC curve of each cell type, left out in turn."""
    data, rows = read(name), {}
    types = data.adata.obs["type"]
    for kind in types.value_counts().index:
        rest = data._replace(adata=data.adata[(types != kind).to_numpy()].copy())
        out = data.adata[(types == kind).to_numpy()].copy()
        model = trained(rest, 0)
        usual = model.support(indices=model.test_indices, **QUIET)
        outlying = model.support(out, **QUIET)
        columns = {"outlier_score": 1, "log_density": -1, "reconstruction_excess": 1}
        row = {c: area(sign * usual[c], sign * outlying[c]) for c, sign in columns.items()}
        row |= peers(model, out) | {"called": (outlying["p_value"] < LEVEL).mean()}
        rows[f"{kind} ({out.n_obs})"] = row
        print(kind, row, flush=True)
    return pd.DataFrame.from_dict(rows, orient="index")


def decoded_worse(name: str) -> pd.Series:
    """Return the deviance of held-out molecules, by fifths of the outlier score of the others."""
    data = read(name)
    model = trained(data, 0)
    halves = thin(model.adata.X[model.test_indices], 0.5, seed=0)
    obs = model.adata.obs.iloc[model.test_indices]
    shown = anndata.AnnData(halves.kept, obs=obs, var=model.adata.var[[]])
    outlying = model.support(shown, **QUIET)["outlier_score"]
    model.denoise(shown, estimate="mean", **QUIET)
    expected = np.maximum(shown.layers["denoised"], 1e-8)
    hidden = halves.held_out.toarray()
    ratio = np.where(hidden > 0, hidden * np.log(np.maximum(hidden, 1) / expected), 0)
    deviance = 2 * (ratio - hidden + expected).sum(axis=1) / hidden.sum(axis=1)
    depth = _depth(halves.held_out)
    off = deviance - KNeighborsRegressor(LIKE_DEPTH).fit(depth[:, None], deviance).predict(
        depth[:, None]
    )
    fifth = pd.qcut(outlying.rank(method="first"), 5, labels=range(1, 6))
    return pd.Series(off, index=outlying.index).groupby(fifth, observed=True).mean()


def main(*names: str) -> None:
    quietly()
    sets = names or ("pancreas", "kang", "pbmc10k")
    print(f"Share of test cells called at {LEVEL}, mean of {len(SEEDS)} splits:")
    print(calibration(sets).round(3).to_string(), "\n", flush=True)
    print(
        f"Share of test cells of Kang called, by the number of held-out cells:\n{few_held_out('kang')}\n"
    )
    print("Excess deviance per held-out molecule at similar depth, by fifths of outlier_score:")
    print(pd.DataFrame({name: decoded_worse(name) for name in sets}).T.round(3).to_string(), "\n")
    print("AUROC of each type left out, pbmc10k:")
    print(unseen_types("pbmc10k").round(3).to_string())


if __name__ == "__main__":
    main(*sys.argv[1:])
