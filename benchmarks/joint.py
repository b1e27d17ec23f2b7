"""Translation of RNA into protein by JointVI and its peers. ``python -m benchmarks.joint``.

In pbmc10k, the protein of 30 % of the cells is hidden. These cells judge the methods: by the
translation on the scale of log(1 + counts), by the distance between the RNA and the protein of a cell
(FOSCTTM), and by the share of cells whose neighbours among the other cells have the same type, after
their protein is shown. TOTALVI reads the hidden cells as a batch without protein, as it requires,
and is trained with its own defaults. Intervals are between the order statistics that contain
another draw with a probability of 90 %.
"""

from __future__ import annotations

import logging
import sys
import time
import warnings
from typing import TYPE_CHECKING, Any, NamedTuple

import mudata
import numpy as np
import pandas as pd
import scanpy as sc
import scvi
import torch
from scipy import stats
from sklearn.decomposition import PCA
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import cross_val_predict
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors

from benchmarks import with_univi
from benchmarks.peers import real_folder
from betavi import JointVI
from betavi.diagnostics import score_translation
from betavi.metrics import foscttm
from betavi.model.expression.translation import _levels

if TYPE_CHECKING:
    from collections.abc import Callable

    from anndata import AnnData

HIDDEN, EPOCHS, DRAWS, PCS, NEIGHBOURS = 0.3, 100, 100, 50, 20
BOTH_PCS, NEIGHBOURS_OF_TYPE = 30, 15
UNKNOWN = ("undefined", "unmatched", "nan")


class Task(NamedTuple):
    """Cells with both assays, some with hidden protein."""

    rna: AnnData
    protein: AnnData
    hidden: np.ndarray
    seed: int

    @property
    def truth(self) -> np.ndarray:
        """Log counts of the hidden protein."""
        return _log_counts(self.protein[self.hidden])

    @property
    def seen(self) -> np.ndarray:
        """Log counts of the protein of the other cells."""
        return _log_counts(self.protein[~self.hidden])


class Prediction(NamedTuple):
    """Mean and interval of each hidden value, and latent positions.

    ``seen`` has the positions of the other cells from both assays, and ``hidden`` the positions of
    the hidden cells from ``"rna"``, ``"prot"`` or ``"both"``.
    """

    mean: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    seen: np.ndarray | None = None
    hidden: dict[str, np.ndarray] | None = None


def read(seed: int) -> Task:
    mdata = mudata.read_h5mu(real_folder() / "pbmc10k_6855x4000.h5mu")
    hidden = np.random.default_rng(seed).random(mdata.n_obs) < HIDDEN
    return Task(mdata["rna"].copy(), mdata["prot"].copy(), hidden, seed)


def _log_counts(adata: AnnData) -> np.ndarray:
    counts = adata.X.toarray() if hasattr(adata.X, "toarray") else adata.X
    return np.log1p(np.asarray(counts, dtype=float))


def components(task: Task) -> np.ndarray:
    """Return principal components of the log-normalised RNA of all cells."""
    rna = task.rna.copy()
    sc.pp.normalize_total(rna, target_sum=1e4)
    sc.pp.log1p(rna)
    sc.pp.pca(rna, n_comps=PCS)
    return np.asarray(rna.obsm["X_pca"])


def ridge(task: Task) -> Prediction:
    pcs, model = components(task), RidgeCV(np.logspace(-2, 4, 13), alpha_per_target=True)
    seen = pcs[~task.hidden]
    error = (cross_val_predict(model, seen, task.seen, cv=5) - task.seen).std(axis=0)
    mean = model.fit(seen, task.seen).predict(pcs[task.hidden])
    half = stats.norm.ppf(0.95) * error
    both_seen, both_hidden = of_both(task)
    return Prediction(mean, mean - half, mean + half, both_seen, {"both": both_hidden})


def of_both(task: Task) -> tuple[np.ndarray, np.ndarray]:
    """Return components of both assays, for the other cells and for the hidden cells."""
    parts = []
    for values in (components(task), stats.zscore(_log_counts(task.protein), axis=0)):
        parts.append(values / np.sqrt(np.square(values - values.mean(axis=0)).sum(axis=1).mean()))
    both = PCA(BOTH_PCS, random_state=0).fit_transform(np.hstack(parts))
    return both[~task.hidden], both[task.hidden]


def neighbours(task: Task) -> Prediction:
    pcs = components(task)
    search = NearestNeighbors(n_neighbors=NEIGHBOURS).fit(pcs[~task.hidden])
    values = task.seen[search.kneighbors(pcs[task.hidden], return_distance=False)]
    lower, upper = np.quantile(values, _levels(NEIGHBOURS), axis=1)
    return Prediction(values.mean(axis=1), lower, upper)


def jointvi(**kwargs: Any) -> Callable[[Task], Prediction]:
    def predict(task: Task) -> Prediction:
        parts = {"rna": task.rna.copy(), "prot": task.protein[~task.hidden].copy()}
        mdata = mudata.MuData(parts)
        JointVI.setup_mudata(mdata, {"rna": "nb", "prot": "nb_mixture"})
        model = JointVI(mdata, **kwargs)
        model.train(max_epochs=EPOCHS, train_size=1.0, enable_progress_bar=False)
        cells = mdata.obs_names.get_indexer(task.rna.obs_names[task.hidden])
        found = model.translate(
            "rna", "prot", indices=cells, n_samples=DRAWS, scale="log1p", show_progress=False
        )
        shown = mudata.MuData(
            {"rna": task.rna[task.hidden].copy(), "prot": task.protein[task.hidden].copy()}
        )
        given = {"rna": "rna", "prot": "prot", "both": None}
        hidden = {
            k: model.get_latent_representation(shown, modalities=names)
            for k, names in given.items()
        }
        others = mdata.obs_names.get_indexer(task.rna.obs_names[~task.hidden])
        seen = model.get_latent_representation(indices=others)
        return Prediction(found.X, found.layers["lower"], found.layers["upper"], seen, hidden)

    return predict


def totalvi(task: Task) -> Prediction:
    adata = task.rna.copy()
    counts = np.expm1(_log_counts(task.protein)).round()
    counts[task.hidden] = 0
    adata.obsm["protein"] = counts
    adata.obs["measured"] = np.where(task.hidden, "no", "yes")
    scvi.model.TOTALVI.setup_anndata(
        adata, protein_expression_obsm_key="protein", batch_key="measured"
    )
    model = scvi.model.TOTALVI(adata)
    model.train(enable_progress_bar=False)
    batch = int(adata.obs["_scvi_batch"][~task.hidden].iloc[0])
    draws = np.log1p(_totalvi_draws(model, np.flatnonzero(task.hidden), batch))
    lower, upper = np.quantile(draws, _levels(DRAWS), axis=0)
    return Prediction(draws.mean(axis=0), lower, upper)


@torch.inference_mode()
def _totalvi_draws(model: scvi.model.TOTALVI, cells: np.ndarray, batch: int) -> np.ndarray:
    """Draw proteins as if all cells were in one batch, ``(n_draws, n_cells, n_proteins)``."""
    parts = []
    for tensors in model._make_data_loader(model.adata, cells):
        draws = []
        for _ in range(DRAWS):
            _, outputs = model.module.forward(
                tensors, generative_kwargs={"transform_batch": batch}, compute_loss=False
            )
            py = outputs["py_"]
            mixture = scvi.distributions.NegativeBinomialMixture(
                mu1=py["rate_back"],
                mu2=py["rate_fore"],
                theta1=py["r"],
                mixture_logits=py["mixing"],
            )
            draws.append(mixture.sample().cpu().numpy())
        parts.append(np.stack(draws))
    return np.concatenate(parts, axis=1)


def univi(task: Task) -> Prediction:
    found = with_univi.univi(task.rna, _log_counts(task.protein), task.hidden, task.seed)
    nothing = np.full_like(found.mean, np.nan)
    return Prediction(found.mean, nothing, nothing, found.seen, found.hidden)


def placed(found: Prediction, task: Task) -> dict[str, float]:
    """Score latent positions by the types of neighbours and by the match of RNA and protein."""
    if found.seen is None or found.hidden is None:
        return {}
    types = task.rna.obs["cell_type_l2"].astype(str).to_numpy()
    is_known = ~np.isin(types, UNKNOWN)
    seen, hidden = is_known[~task.hidden], is_known[task.hidden]
    guess = KNeighborsClassifier(NEIGHBOURS_OF_TYPE)
    guess.fit(found.seen[seen], types[~task.hidden][seen])
    scores = {"types": guess.score(found.hidden["both"][hidden], types[task.hidden][hidden])}
    if "rna" in found.hidden:
        scores["FOSCTTM"] = foscttm(found.hidden["rna"], found.hidden["prot"])
    return scores


METHODS: dict[str, Callable[[Task], Prediction]] = {
    "ridge on 50 PCs": ridge,
    "kNN, 20": neighbours,
    **{f"JointVI, {name}": jointvi(fusion=name) for name in ("mvtcae", "mopoe", "moe", "poe")},
    "JointVI, mvtcae, protein x 2": jointvi(modality_weights={"prot": 2.0}),
    "JointVI, mvtcae, beta 2": jointvi(beta=2.0),
    "JointVI, mvtcae, beta 0.5, 10 dimensions": jointvi(beta=0.5, n_latent=10),
    "TOTALVI": totalvi,
    "UniVI": univi,
}


def main(*words: str) -> None:
    """Run the named methods and seeds, by default all methods with one seed."""
    logging.disable(logging.INFO)
    warnings.filterwarnings("ignore")
    rows = []
    names = [word for word in words if word in METHODS] or list(METHODS)
    for seed in [int(word) for word in words if word.isdigit()] or [0]:
        task = read(seed)
        for name in names:
            predict = METHODS[name]
            scvi.settings.seed = seed
            # numba may have changed the number of threads
            torch.set_num_threads(1)
            start = time.perf_counter()
            found = predict(task)
            scores = score_translation(found.mean, task.truth, found.lower, found.upper)
            if np.isnan(found.lower).all():
                # without an interval, coverage is not defined
                scores["coverage"] = np.nan
            rows.append({"method": name, "seed": seed, **scores.mean(), **placed(found, task)})
            rows[-1]["seconds"] = time.perf_counter() - start
            print(*rows[-1].values(), sep="\t", flush=True)
    table = pd.DataFrame(rows).groupby("method", sort=False).median().drop(columns="seed")
    print(f"\nMeans over proteins, medians over seeds:\n{table.round(3).to_string()}")


if __name__ == "__main__":
    main(*sys.argv[1:])
