"""Do models translate to and from images? ``python -m benchmarks.image_translation [word ...]``.

Words are names of data, of rows, and seeds; by default all data and rows, and seeds 0 to 2. *simulated*, from RNA to image
and back: filaments of 32 by 32 pixels with 100 genes, 1,500 cells to fit and 300 to judge.
*cell*: crops of three channels of a cell in BETAVI_DATA_DIR/images, from mitochondria and
actin to the nucleus, from the left half to fit and from the right half to judge. The last fifth of the
crops to fit is held out, because crops at other places overlap less.

Columns: *error*, mean squared error, relative to the mean of the cells to fit; of images without noise
where they are known, and of log(1 + counts) of genes. *R²* against measured values, mean over pixels or
genes. *coverage*, share of measured values inside the 90 % intervals, and the share of pixels or genes
whose coverage is 0.88 to 0.92, and the share expected of exact intervals with as many cells. *ridge* is
ridge regression on 64 principal components of the source, with a penalty from cross-validation. Its
intervals are its prediction plus quantiles of its residuals in cross-validation.
"""

from __future__ import annotations

import sys
import time
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
import scvi
import torch
from anndata import AnnData
from mudata import MuData
from PIL import Image
from scipy import stats
from sklearn.decomposition import PCA
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import cross_val_predict

from benchmarks.peers import processor, quietly, real_folder
from betavi import JointVI
from betavi.datasets import crops, simulate_filaments

if TYPE_CHECKING:
    from collections.abc import Callable

    Predict = Callable[[str], "Found"]

SEEDS, N_FIT, N_JUDGED, SIDE, N_GENES = (0, 1, 2), 1500, 300, 32, 100
N_COMPONENTS, N_LATENT, PENALTIES, FOLDS = 64, 32, np.logspace(0, 6, 13), 5
SIZE, STRIDE, MIN_CONTRAST, HELD_OUT = 64, 16, 200.0, 0.2


class Task(NamedTuple):
    """Cells to fit and to judge, likelihoods, and targets by source."""

    fit: MuData
    judged: MuData
    likelihoods: dict[str, str]
    targets: dict[str, str]
    by_place: bool = False


class Found(NamedTuple):
    """Prediction of the judged cells and the ends of its interval, ``(n_cells, n_features)``."""

    mean: np.ndarray
    lower: np.ndarray
    upper: np.ndarray


def simulated(seed: int) -> Task:
    mdata = simulate_filaments(N_FIT + N_JUDGED, SIDE, N_GENES, seed=seed)
    parts = mdata[:N_FIT].copy(), mdata[N_FIT:].copy()
    likelihoods = {"rna": "nb", "image": "band_normal"}
    return Task(*parts, likelihoods, {"rna": "image", "image": "rna"})


def cell(_seed: int) -> Task:  # there is one cell
    folder = real_folder() / "images"
    channels = [Image.open(folder / f"BPAE_{name}.tif") for name in ("mito", "actin", "nuclei")]
    adata = crops(np.stack([*map(np.asarray, channels)]), SIZE, STRIDE, min_contrast=MIN_CONTRAST)
    is_fit = (adata.obs["set"] == "training").to_numpy()
    row, column = (adata.obs[name].to_numpy() for name in ("row", "column"))
    is_apart = (row % SIZE == 0) & ((column - column[~is_fit].min()) % SIZE == 0)
    parts = [pair(adata.obsm["image"][cells]) for cells in (is_fit, ~is_fit & is_apart)]
    likelihoods = dict.fromkeys(("cytoplasm", "nucleus"), "band_normal")
    return Task(*parts, likelihoods, {"cytoplasm": "nucleus"}, by_place=True)


def pair(images: np.ndarray) -> MuData:
    names = pd.DataFrame(index=[f"crop{i}" for i in range(len(images))])
    parts = {"cytoplasm": images[:, :2], "nucleus": images[:, 2:]}
    return MuData({key: AnnData(obs=names, obsm={"image": x}) for key, x in parts.items()})


def values(adata: AnnData) -> np.ndarray:
    """Return pixels, or log(1 + counts), ``(n_cells, n_features)``."""
    if adata.n_vars:
        return np.log1p(adata.X.toarray())
    return adata.obsm["image"].reshape(adata.n_obs, -1).astype(float)


def mean_of_cells(task: Task, seed: int) -> Predict:  # noqa: ARG001  # nothing is drawn
    def predict(source: str) -> Found:
        y = values(task.fit[task.targets[source]])
        shape = task.judged.n_obs, y.shape[1]
        parts = (y.mean(axis=0), *np.quantile(y, [0.05, 0.95], axis=0))
        return Found(*(np.broadcast_to(part, shape) for part in parts))

    return predict


def ridge(task: Task, seed: int) -> Predict:
    def predict(source: str) -> Found:
        x, new = (values(part[source]) for part in (task.fit, task.judged))
        y = values(task.fit[task.targets[source]])
        pca = PCA(N_COMPONENTS, random_state=seed).fit(x)
        model = RidgeCV(PENALTIES).fit(pca.transform(x), y)
        residual = y - cross_val_predict(model, pca.transform(x), y, cv=FOLDS)
        mean = model.predict(pca.transform(new))
        return Found(mean, *(mean + np.quantile(residual, [[0.05], [0.95]], axis=0)))

    return predict


def jointvi(task: Task, seed: int, likelihood: str = "band_normal") -> Predict:
    scvi.settings.seed = seed
    torch.set_num_threads(1)
    keys = {name: "image" for name in task.likelihoods if not task.fit[name].n_vars}
    JointVI.setup_mudata(
        task.fit, task.likelihoods | dict.fromkeys(keys, likelihood), image_keys=keys
    )
    model = JointVI(task.fit, n_latent=N_LATENT)
    splitting = {}
    if task.by_place:
        cells = np.arange(task.fit.n_obs)
        parts = np.split(cells, [int((1 - HELD_OUT) * len(cells))])
        splitting = {"datasplitter_kwargs": {"external_indexing": parts}}
    model.train(enable_progress_bar=False, accelerator="cpu", **splitting)

    def predict(source: str) -> Found:
        target = task.targets[source]
        scale = "counts" if target in keys else "log1p"
        found = model.translate(
            source, target, task.judged, n_samples=50, scale=scale, show_progress=False
        )
        parts = found.obsm if target in keys else found.layers
        mean = found.obsm["image"] if target in keys else found.X
        shape = task.judged.n_obs, -1
        return Found(
            *(np.asarray(x).reshape(shape) for x in (mean, parts["lower"], parts["upper"]))
        )

    return predict


DATA = {"simulated": simulated, "cell": cell}
ROWS: dict[str, Callable[[Task, int], Predict]] = {
    "mean": mean_of_cells, "ridge": ridge, "JointVI": jointvi,
    "JointVI, normal_image": partial(jointvi, likelihood="normal_image"),
    "JointVI, multiscale_normal": partial(jointvi, likelihood="multiscale_normal"),
}  # fmt: skip


def scores_of(task: Task, source: str, found: Found) -> dict[str, float]:
    target = task.targets[source]
    measured, centre = values(task.judged[target]), values(task.fit[target]).mean(axis=0)
    truth = measured
    if "expected_image" in task.judged[target].obsm:
        truth = task.judged[target].obsm["expected_image"].reshape(measured.shape)
    error = np.square(found.mean - truth).mean() / np.square(centre - truth).mean()
    left, total = np.square(found.mean - measured).sum(0), np.square(centre - measured).sum(0)
    inside = ((found.lower <= measured) & (measured <= found.upper)).mean(axis=0)
    n = len(measured)
    counts = np.arange(n + 1)
    is_near = (counts / n >= 0.88) & (counts / n <= 0.92)
    return {
        "error": float(error),
        "R²": float(np.mean(1 - left[total > 0] / total[total > 0])),
        "coverage": float(inside.mean()),
        "0.88 to 0.92": float(((inside >= 0.88) & (inside <= 0.92)).mean()),
        "expected": float(stats.binom(n, 0.9).pmf(counts)[is_near].sum()),
        "width": float(np.mean(found.upper - found.lower)),
    }


def main(*words: str) -> None:
    quietly(1)
    seeds = [int(word) for word in words if word.isdigit()] or SEEDS
    print(processor(), "one thread")
    rows = []
    for name in [name for name in DATA if name in words] or list(DATA):
        for seed in seeds:
            task = DATA[name](seed)
            for row in [row for row in ROWS if row in words] or list(ROWS):
                start = time.perf_counter()
                predict = ROWS[row](task, seed)
                for source, target in task.targets.items():
                    found = scores_of(task, source, predict(source))
                    key = {"data": name, "target": target, "row": row}
                    rows.append(key | found | {"s": time.perf_counter() - start})
                    print(seed, rows[-1], flush=True)
    table = pd.DataFrame(rows).groupby(["data", "target", "row"], sort=False).median()
    print(f"\nMedians over seeds {list(seeds)}:\n{table.round(3).to_string()}")


if __name__ == "__main__":
    main(*sys.argv[1:])
