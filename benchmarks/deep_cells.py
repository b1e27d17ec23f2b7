"""Effect of one very deep barcode on the model of all other cells.

To the training cells of a data set, add one row: the sum of all its cells. Held-out cells are the
same with and without this row. ``limit`` is BetaVI's limit on a cell's depth in training. The limit
was chosen on kang muscat. The table also counts the cells of each data set that are above it.

Run with ``make bench``, or ``python -m benchmarks.deep_cells [data set ...]``.
"""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import anndata
import numpy as np
import pandas as pd
import scvi
from scipy import sparse
from sklearn.neighbors import KNeighborsClassifier

from benchmarks.peers import DataSet, quietly
from betavi import BetaVI
from betavi.data import start_values

if TYPE_CHECKING:
    from collections.abc import Iterator

    from anndata import AnnData

SEEDS = (0, 1, 2)
MAX_EPOCHS = 30
N_NEIGHBORS = 15
ELBO_DRAWS = 5
DATA: dict[str, tuple[DataSet, str]] = {
    "kang muscat (choice)": (DataSet("kang_muscat.h5ad"), "cluster_id"),
    "pancreas": (DataSet("pancreas_3696x2000.h5ad", n_top_genes=1000), "clusters"),
    "zeisel": (DataSet("zeisel_1464x1000.h5ad"), "cell_type"),
    "norman": (DataSet("norman19_mcfaline23_counts.h5ad"), "condition"),
    "scifi": (DataSet("datlinger21_scifi_7500x2000.h5ad"), "stimulus"),
}
MODELS: dict[str, tuple[type, float]] = {
    "BetaVI": (BetaVI, start_values.LARGEST_DEPTH),
    "BetaVI, no limit": (BetaVI, np.inf),
    "SCVI": (scvi.model.SCVI, np.inf),
}


def with_aggregate(adata: AnnData) -> AnnData:
    total = sparse.csr_matrix(np.asarray(adata.X.sum(axis=0)))
    row = anndata.AnnData(total, obs=pd.DataFrame(index=["aggregate"]), var=adata.var[[]].copy())
    return anndata.concat([adata, row], join="outer")


@contextmanager
def depth_limit(medians: float) -> Iterator[None]:
    before, start_values.LARGEST_DEPTH = start_values.LARGEST_DEPTH, medians
    try:
        yield
    finally:
        start_values.LARGEST_DEPTH = before


def scores(cls: Any, adata: AnnData, labels: np.ndarray, seed: int) -> tuple[float, float]:
    """Return -ELBO, and the share of types predicted by neighbours, of the held-out cells."""
    n_cells = len(labels)
    held_out = np.arange(0, n_cells, 10)
    train = np.setdiff1d(np.arange(adata.n_obs), held_out)
    scvi.settings.seed = seed
    cls.setup_anndata(adata)
    model = cls(adata, n_latent=10)
    model.train(
        max_epochs=MAX_EPOCHS, enable_progress_bar=False, accelerator="cpu",
        datasplitter_kwargs={"external_indexing": [train, held_out]},
    )  # fmt: skip
    elbo = -np.mean([float(model.get_elbo(indices=held_out)) for _ in range(ELBO_DRAWS)])
    z, cells = model.get_latent_representation(), train[train < n_cells]
    nearest = KNeighborsClassifier(N_NEIGHBORS).fit(z[cells], labels[cells])
    return float(elbo), float(nearest.score(z[held_out], labels[held_out]))


def main(*names: str) -> None:
    quietly()
    rows = []
    for name in names or DATA:
        data, key = DATA[name]
        adata = data.read()
        adata = adata[np.asarray(adata.X.sum(axis=1)).ravel() > 0].copy()
        totals = np.asarray(adata.X.sum(axis=1)).ravel()
        n_deep = int((totals > start_values.LARGEST_DEPTH * np.median(totals)).sum())
        labels = adata.obs[key].astype(str).to_numpy()
        for seed in SEEDS:
            for label, (cls, limit) in MODELS.items():
                for what, cells in {"alone": adata, "with": with_aggregate(adata)}.items():
                    with depth_limit(limit):
                        found = scores(cls, cells.copy(), labels, seed)
                    rows.append((name, n_deep, label, what, *found))
                    print(*rows[-1], sep="\t", flush=True)
    columns = ["data", "above", "model", "row", "-ELBO", "types"]
    table = pd.DataFrame(rows, columns=columns)
    medians = table.pivot_table(columns[4:], columns[:3], "row", aggfunc="median")
    print(f"\nHeld-out cells, median of {len(SEEDS)} seeds, without and with the deep row:")
    print(medians.round(3).to_string())


if __name__ == "__main__":
    main(*sys.argv[1:])
