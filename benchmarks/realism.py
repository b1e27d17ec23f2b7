"""How real generated cells are: BetaVI beside SCVI, between two real halves and shuffled genes.

Around each measured cell one is drawn from its posterior by either package with its defaults; BetaVI
also draws from the aggregate posterior and from the prior. ``python -m benchmarks.realism``.
"""

from __future__ import annotations

import logging
import sys
import warnings
from typing import Any, NamedTuple

import anndata
import mudata
import numpy as np
import pandas as pd
import scvi
import torch
from scipy import sparse

from benchmarks.peers import THREADS, real_folder
from betavi import BetaVI
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


def trained(cls: type, data: Set, **arguments: Any) -> Any:
    scvi.settings.seed = 0
    adata = data.adata.copy()
    cls.setup_anndata(adata, batch_key=data.batch_key)
    model = cls(adata, **arguments)
    model.train(accelerator="cpu", enable_progress_bar=False)
    return model


def of_scvi(data: Set, likelihood: str) -> anndata.AnnData:
    model = trained(scvi.model.SCVI, data, gene_likelihood=likelihood)
    drawn = model.posterior_predictive_sample(n_samples=1)
    counts = drawn.todense() if hasattr(drawn, "todense") else drawn
    obs, var = data.adata.obs[["type"]], data.adata.var[[]]
    return anndata.AnnData(sparse.csr_matrix(np.asarray(counts).squeeze()), obs=obs, var=var)


def generated(data: Set) -> dict[str, anndata.AnnData]:
    found = {}
    types = data.adata.obs["type"]
    for likelihood in ("zinb", "nb"):
        model = trained(BetaVI, data, gene_likelihood=likelihood)
        every = np.arange(data.adata.n_obs)
        options: dict[str, Any] = {"n_cells": len(every), "seed": 0, "show_progress": False}
        ways = {
            "posterior": {"source": "cells", "cells": every},
            "aggregate": {"source": "aggregate"},
            "prior": {"source": "prior"},
        }
        for way, how in ways.items():
            cells = model.generate(**options, **how)
            cells.obs["type"] = types.loc[cells.obs["nearest_cell"]].to_numpy()
            found[f"BetaVI {likelihood}, {way}"] = cells
        found[f"SCVI {likelihood}, posterior"] = of_scvi(data, likelihood)
    return found


def main(*names: str) -> None:
    logging.disable(logging.INFO)
    warnings.filterwarnings("ignore")
    torch.set_num_threads(THREADS)
    for name in names or ("pancreas", "kang", "pbmc10k"):
        data = read(name)
        table = realism(data.adata, generated(data), groupby="type")
        print(f"\n{name}: {data.adata.n_obs} cells, {data.adata.n_vars} genes")
        with pd.option_context("display.width", 200):
            print(table.round(3).to_string(), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
