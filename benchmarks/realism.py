"""How real generated cells are: BetaVI beside SCVI, between other real cells and shuffled genes.

Both are trained on half of the cells, with their defaults and BetaVI also for as long as SCVI, and
draw a cell around each of these from its posterior; BetaVI also from the aggregate posterior and from
the prior. The judges are the cells of the other half, which no model has seen: what was learnt by
heart is no gain. Samples of SCVI with ``zinb`` are smaller by the dropouts, as its decoder's size is that
of a cell without them; those of BetaVI have the totals of measured cells.
``python -m benchmarks.realism [zinb] [nb] [set ...]``: ``zinb`` and three sets if none is named.
"""

from __future__ import annotations

import sys
from typing import Any, NamedTuple

import anndata
import mudata
import numpy as np
import pandas as pd
import scvi
from scipy import sparse

from benchmarks.peers import quietly, real_folder
from betavi import BetaVI
from betavi.likelihoods import LIKELIHOODS
from betavi.metrics import realism

NO_TYPE = ("undefined", "unmatched")


class Set(NamedTuple):
    """Counts with types of cells, and the column of their batches."""

    adata: anndata.AnnData
    batch_key: str | None


def read(name: str) -> Set:
    folder = real_folder()
    if name == "pbmc10k":
        mdata = mudata.read_h5mu(folder / "pbmc10k_6855x4000.h5mu")
        adata = anndata.AnnData(mdata["rna"].X, var=mdata["rna"].var[[]])
        types = mdata.obs if "cell_type_l1" in mdata.obs else mdata["rna"].obs
        adata.obs["type"] = types["cell_type_l1"].astype(str).to_numpy()
        adata = adata[~adata.obs["type"].isin(NO_TYPE)].copy()
        batch_key = None
    elif name == "kang":
        adata = anndata.read_h5ad(folder / "kang_muscat.h5ad")
        adata.obs["type"] = adata.obs["cluster_id"].astype(str)
        batch_key = "group_id"
    else:
        adata = anndata.read_h5ad(folder / "pancreas_3696x2000.h5ad")
        adata.obs["type"] = adata.obs["clusters"].astype(str)
        batch_key = None
    return Set(adata[:, np.asarray(adata.X.sum(axis=0)).ravel() > 0].copy(), batch_key)


def halves(data: Set) -> tuple[Set, anndata.AnnData]:
    """Return the cells to train on, and the others."""
    order = np.random.default_rng(0).permutation(data.adata.n_obs)
    first, second = (data.adata[np.sort(part)].copy() for part in np.array_split(order, 2))
    return Set(first, data.batch_key), second


def trained(cls: type, data: Set, max_epochs: int | None = None, **arguments: Any) -> Any:
    scvi.settings.seed = 0
    adata = data.adata.copy()
    cls.setup_anndata(adata, batch_key=data.batch_key)
    model = cls(adata, **arguments)
    model.train(max_epochs, accelerator="cpu", enable_progress_bar=False)
    return model


def of_scvi(data: Set, model: Any) -> anndata.AnnData:
    drawn = model.posterior_predictive_sample(n_samples=1)
    counts = drawn.todense() if hasattr(drawn, "todense") else drawn
    obs, var = data.adata.obs[["type"]], data.adata.var[[]]
    return anndata.AnnData(sparse.csr_matrix(np.asarray(counts).squeeze()), obs=obs, var=var)


def of_betavi(data: Set, model: BetaVI, *ways: str) -> dict[str, anndata.AnnData]:
    every, found = np.arange(data.adata.n_obs), {}
    for way in ways:
        around = every if way == "cells" else None
        cells = model.generate(len(every), source=way, cells=around, seed=0, show_progress=False)
        assert cells is not None
        nearest = cells.obs["near_cell"]
        cells.obs["type"] = data.adata.obs["type"].loc[nearest].to_numpy()
        found[way] = cells
    return found


def generated(data: Set, likelihoods: list[str]) -> dict[str, anndata.AnnData]:
    found = {}
    for likelihood in likelihoods:
        theirs = trained(scvi.model.SCVI, data, gene_likelihood=likelihood)
        found[f"SCVI {likelihood}, posterior"] = of_scvi(data, theirs)
        epochs = len(theirs.history["elbo_train"])
        ours = trained(BetaVI, data, gene_likelihood=likelihood)
        longer = trained(BetaVI, data, epochs, gene_likelihood=likelihood)
        cells = of_betavi(data, ours, "cells", "aggregate", "prior")
        found[f"BetaVI {likelihood}, posterior"] = cells.pop("cells")
        found |= {f"BetaVI {likelihood}, {way}": drawn for way, drawn in cells.items()}
        cells = of_betavi(data, longer, "cells", "aggregate")
        found[f"BetaVI {likelihood}, {epochs} epochs, posterior"] = cells["cells"]
        found[f"BetaVI {likelihood}, {epochs} epochs, aggregate"] = cells["aggregate"]
    return found


def main(*words: str) -> None:
    quietly()
    likelihoods = [word for word in words if word in LIKELIHOODS] or ["zinb"]
    names = [word for word in words if word not in LIKELIHOODS]
    for name in names or ("pancreas", "kang", "pbmc10k"):
        data = read(name)
        trained_on, unseen = halves(data)
        table = realism(unseen, generated(trained_on, likelihoods), groupby="type")
        print(f"\n{name}: {unseen.n_obs} unseen cells, {unseen.n_vars} genes")
        with pd.option_context("display.width", 200):
            print(table.round(3).to_string(), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
