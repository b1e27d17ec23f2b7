"""Do latent dimensions stand for one process each? ``python -m benchmarks.disentanglement [word ...]``.

Words are names of data, of rows, and seeds; by default all data and rows, and seeds 0 to 4. Scores are
those of ``betavi.metrics.disentanglement`` with cell types, or with the activity of simulated programs:
LMS (each label has a dimension of its own), MSAS (best dimension of each label) and MSGS (its lead over
the second). ELBO is of held-out cells, in nats. *Programs* counts simulated programs whose loadings
correlate with those of a dimension by at least 0.9.

*ICA* and *varimax* after "plain" rotate the positions of this model. The additive decoder, its start and
the prior were chosen on pancreas. The other sets had no part in the
choice. DRVI runs where scvi-tools has it (version 1.5), with its defaults and 60 epochs.
"""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import anndata
import mudata
import numpy as np
import pandas as pd
import scanpy as sc
import scvi
import torch
from scipy.optimize import linear_sum_assignment
from sklearn.decomposition import NMF, PCA, FastICA

from benchmarks.peers import processor, quietly, real_folder
from betavi import BetaVI
from betavi.datasets import simulate_programs
from betavi.metrics import disentanglement

if TYPE_CHECKING:
    from collections.abc import Callable

    from anndata import AnnData

SEEDS, N_LATENT, N_GENES, DRVI_EPOCHS = (0, 1, 2, 3, 4), 10, 2000, 60
UNKNOWN = ("undefined", "unmatched")


class Task(NamedTuple):
    """Cells, the key of their types (None with simulated activity), and the key of their batches."""

    adata: AnnData
    labels_key: str | None = None
    batch_key: str | None = None


class Found(NamedTuple):
    """Positions of the cells, loadings (dimensions × genes) if there are any, and held-out ELBO."""

    z: np.ndarray
    loadings: np.ndarray | None = None
    elbo: float = np.nan


def most_variable(adata: AnnData) -> AnnData:
    if adata.n_vars <= N_GENES:
        return adata
    found = sc.pp.highly_variable_genes(
        adata, flavor="seurat_v3", n_top_genes=N_GENES, inplace=False
    )
    return adata[:, found["highly_variable"].to_numpy()].copy()


def pbmc10k(_: int = 0) -> Task:
    cells = mudata.read_h5mu(real_folder() / "pbmc10k_6855x4000.h5mu")
    adata = cells["rna"].copy()
    key = "cell_type_l1"
    adata.obs[key] = (cells.obs if key in cells.obs else adata.obs)[key].to_numpy()
    return Task(most_variable(adata[~adata.obs[key].isin(UNKNOWN)].copy()), key)


def real(name: str, labels_key: str, batch_key: str | None = None) -> Callable[[int], Task]:
    def read(_: int = 0) -> Task:
        return Task(anndata.read_h5ad(real_folder() / name), labels_key, batch_key)

    return read


DATA: dict[str, Callable[[int], Task]] = {
    "pancreas": real("pancreas_3696x2000.h5ad", "clusters"),
    "kang_muscat": real("kang_muscat.h5ad", "cluster_id", "sample_id"),
    "zeisel": real("zeisel_1464x1000.h5ad", "cell_type"),
    "pbmc10k": pbmc10k,
    "simulated": lambda seed: Task(simulate_programs(seed=seed)),
    "simulated_rates": lambda seed: Task(simulate_programs(scale="rate", seed=seed)),
}


def log_counts(adata: AnnData) -> np.ndarray:
    normalised = sc.pp.normalize_total(adata, inplace=False)["X"]
    return normalised.log1p().toarray()


def pca(task: Task, seed: int) -> Found:
    model = PCA(N_LATENT, random_state=seed)
    return Found(model.fit_transform(log_counts(task.adata)), model.components_)


def ica(task: Task, seed: int) -> Found:
    first = PCA(N_LATENT, random_state=seed)
    components = first.fit_transform(log_counts(task.adata))
    model = FastICA(N_LATENT, whiten="unit-variance", max_iter=1000, random_state=seed)
    return Found(model.fit_transform(components), model.mixing_.T @ first.components_)


def nmf(task: Task, seed: int) -> Found:
    model = NMF(N_LATENT, max_iter=300, random_state=seed)
    return Found(model.fit_transform(log_counts(task.adata)), model.components_)


def betavi(**options: Any) -> Callable[[Task, int], Found]:
    def fit(task: Task, seed: int) -> Found:  # noqa: ARG001  # scvi's seed is set
        BetaVI.setup_anndata(task.adata, batch_key=task.batch_key)
        model = BetaVI(task.adata, n_latent=N_LATENT, gene_likelihood="nb", **options)
        model.train(train_size=0.9, enable_progress_bar=False)
        torch.set_num_threads(1)
        elbo = float(model.get_elbo(indices=model.validation_indices))
        return Found(model.get_latent_representation(), loadings_of(model), elbo)

    return fit


def plain_ica(task: Task, seed: int) -> Found:
    """Return independent components of the positions of the plain decoder."""
    found = betavi()(task, seed)
    model = FastICA(whiten="unit-variance", max_iter=1000, random_state=seed)
    return Found(model.fit_transform(found.z), None, found.elbo)


def varimax(task: Task, seed: int) -> Found:
    """Return the positions of the plain decoder, rotated to few large values (Kaiser, 1958)."""
    found = betavi()(task, seed)
    z = found.z - found.z.mean(axis=0)
    turn = np.eye(N_LATENT)
    for _ in range(100):
        turned = z @ turn
        u, _, v = np.linalg.svd(z.T @ (turned**3 - turned * np.square(turned).mean(axis=0)))
        turn = u @ v
    return Found(z @ turn, None, found.elbo)


def loadings_of(model: BetaVI) -> np.ndarray | None:
    """Return the programs of high and of low values, if the decoder has them."""
    if model.module.options.decoder != "additive":
        return None
    weights = model.module.likelihood("X").unscaled.weight[:, : 2 * N_LATENT]
    return weights.detach().numpy().T


def drvi(task: Task, seed: int) -> Found:  # noqa: ARG001  # as above
    scvi.external.DRVI.setup_anndata(task.adata, batch_key=task.batch_key)
    model = scvi.external.DRVI(task.adata, n_latent=N_LATENT)
    model.train(max_epochs=DRVI_EPOCHS, train_size=0.9, enable_progress_bar=False)
    elbo = float(model.get_elbo(indices=model.validation_indices))
    return Found(model.get_latent_representation(), None, elbo)


ROWS: dict[str, Callable[[Task, int], Found]] = {
    "PCA": pca,
    "ICA": ica,
    "NMF": nmf,
    "plain": betavi(),
    "plain, beta=4": betavi(beta=4.0),
    "plain, ICA": plain_ica,
    "plain, varimax": varimax,
    "plain, independent": betavi(prior="independent"),
    "additive": betavi(decoder="additive"),
    "additive, independent": betavi(decoder="additive", prior="independent"),
}
if hasattr(scvi.external, "DRVI"):
    ROWS["DRVI"] = drvi


def recovered(loadings: np.ndarray | None, truth: np.ndarray) -> float:
    """Return the number of programs with a dimension whose loadings correlate by at least 0.9."""
    if loadings is None:
        return np.nan
    # a baseline has no sign
    corr = np.abs(np.corrcoef(loadings, truth.T)[: len(loadings), len(loadings) :])
    rows, columns = linear_sum_assignment(-np.nan_to_num(corr))
    return float((corr[rows, columns] >= 0.9).sum())


def judged(task: Task, found: Found, seed: int) -> dict[str, float]:
    options = {"n_permutations": 20, "n_bootstrap": 2, "seed": seed}
    if task.labels_key is None:
        truth = task.adata.obsm["activity"]
        active = pd.DataFrame(truth > 0).to_numpy()
        scores = np.mean([_of_program(found.z, column, options) for column in active.T], axis=0)
        scores = dict(zip(("MSAS", "MSGS"), scores, strict=True))
        scores["programs"] = recovered(found.loadings, task.adata.varm["programs"])
    else:
        labels = task.adata.obs[task.labels_key]
        scores = disentanglement(found.z, labels, **options).table["value"].loc["latent"].to_dict()
    return scores | {"held-out ELBO": found.elbo}


def _of_program(z: np.ndarray, is_active: np.ndarray, options: dict[str, int]) -> list[float]:
    labels = np.where(is_active, "active", "not active")
    values = disentanglement(z, labels, **options).table["value"].loc["latent"]
    return [values["MSAS"], values["MSGS"]]


def main(*words: str) -> None:
    quietly(1)
    seeds = [int(word) for word in words if word.isdigit()] or SEEDS
    print(processor(), f"one thread, scvi-tools {scvi.__version__}, {N_LATENT} dimensions")
    rows = []
    for name in [name for name in DATA if name in words] or list(DATA):
        for row in [row for row in ROWS if row in words] or list(ROWS):
            for seed in seeds:
                task = DATA[name](seed)
                scvi.settings.seed = seed
                start = time.perf_counter()
                found = ROWS[row](task, seed)
                seconds = time.perf_counter() - start
                scores = judged(task, found, seed)
                rows.append({"data": name, "row": row, "seed": seed, **scores, "s": seconds})
                print(rows[-1], flush=True)
    table = pd.DataFrame(rows).drop(columns="seed").groupby(["data", "row"], sort=False)
    print(f"\nMedians over seeds {list(seeds)}:\n{table.median().round(3).to_string()}")
    spread = table[[column for column in ("LMS", "MSAS") if column in rows[-1]]]
    print(f"\nLowest and highest seed:\n{spread.agg(['min', 'max']).round(3).to_string()}")


if __name__ == "__main__":
    main(*sys.argv[1:])
