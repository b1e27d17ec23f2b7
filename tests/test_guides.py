"""The examples of the guide run, in the order in which a reader meets them."""

from __future__ import annotations

import re
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
import scanpy as sc
import scvi
from anndata import AnnData
from mudata import MuData

import betavi
from betavi.datasets import simulate_counts, simulate_multiome
from tests.conftest import BRIEF, slow_where

GUIDE = Path(__file__).parents[1] / "docs" / "guide"
LIKELIHOODS = {"rna": "zinb", "adt": "nb_mixture"}


def examples(page):
    return re.findall(r"```python\n(.*?)```", (GUIDE / page).read_text(), flags=re.DOTALL)


PAGES = sorted(page.name for page in GUIDE.glob("*.md") if examples(page.name))


def cells(seed=0):
    adata = simulate_counts(n_cells=600, n_genes=40, n_batches=2, seed=seed)
    adata.var_names = ["CD3E", "MS4A1", *adata.var_names[2:]]
    adata.obs["celltype"] = adata.obs["cell_type"].astype(str)
    adata.obs.iloc[::25, adata.obs.columns.get_loc("celltype")] = "rare"
    return adata


def assays(seed=0, **options):
    return simulate_multiome(n_cells=300, n_batches=2, seed=seed, **options)


def names_of(page):
    """Return what the page takes for given: an object, a trained model, groups of cells."""
    scvi.settings.seed = 0
    adata, mdata = cells(), assays()
    for part in mdata.mod.values():
        part.obs["batch"] = mdata.obs["batch"][part.obs_names]
    betavi.BetaVI.setup_anndata(adata, batch_key="batch")
    betavi.JointVI.setup_mudata(mdata, LIKELIHOODS, batch_key="batch")
    model, joint = betavi.BetaVI(adata), betavi.JointVI(mdata, n_latent=5)
    for one in (model, joint):
        one.train(**BRIEF | {"train_size": 0.8})
    types = adata.obs["cell_type"]
    query = assays(seed=1, n_proteins=0) if page == "joint.md" else cells(seed=1)
    query.obs["batch"] = query.obs["batch"].astype(str) if page == "map.md" else "new"
    return {
        "betavi": betavi, "np": np, "sc": sc, "adata": adata, "mdata": mdata, "query": query,
        "model": model, "joint": joint, "reference": adata,
        "start_cells": (types == "type_0").to_numpy(), "end_cells": (types == "type_1").to_numpy(),
    }  # fmt: skip


def with_images(names):
    """Return the names with images of the cells, and of the RNA's cells as a second modality."""
    draws, mdata = np.random.default_rng(0), names["mdata"]
    images = draws.poisson(9.0, (600, 1, 32, 32)).astype(np.uint16)
    names["adata"].obs["plate"] = names["adata"].obs["batch"]
    part = AnnData(obs=mdata["rna"].obs[[]].copy(), obsm={"image": images[: mdata["rna"].n_obs]})
    return names | {"images": images, "mdata": MuData({"rna": mdata["rna"], "image": part})}


@pytest.mark.usefixtures("brief")
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("page", slow_where(PAGES, {"collapse.md", "denoise.md", "joint.md"}))
def test_the_examples_of_a_page_run(page, tmp_path, monkeypatch):
    mpl.use("Agg")
    monkeypatch.chdir(tmp_path)
    names = with_images(names_of(page)) if page == "images.md" else names_of(page)
    for example in examples(page):
        exec(example, names)
    plt.close("all")
