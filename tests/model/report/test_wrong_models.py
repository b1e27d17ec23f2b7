"""Wrong models get the right page, and a good model is not called wrong."""

from __future__ import annotations

import numpy as np
import pytest
import scanpy as sc
import scvi
import torch

from betavi import BetaVI
from betavi.datasets import simulate_counts
from tests.brief import repeat_less
from tests.model.report.markup import first_screen

pytestmark = pytest.mark.slow

QUIET = {"show_progress": False}


def cells():
    return simulate_counts(n_cells=1000, n_genes=120, n_batches=2, seed=2)


def judged(adata, folder, monkeypatch, max_epochs=40, **arguments):
    """Return the content of a report, and the words of its first screen."""
    repeat_less(monkeypatch.setattr)
    scvi.settings.seed = 0
    torch.set_num_threads(1)
    BetaVI.setup_anndata(adata, batch_key="batch")
    model = BetaVI(adata, n_latent=5, **arguments)
    model.train(max_epochs, train_size=0.7, enable_progress_bar=False)
    content = model.report(folder / "report.html", **QUIET)
    return content, first_screen((folder / "report.html").read_text(encoding="utf-8"))


def test_a_good_model_is_not_called_wrong(tmp_path, monkeypatch):
    content, screen = judged(cells(), tmp_path, monkeypatch)
    assert content["answer"] == "usable", content["findings"]
    assert set(content["purposes"].values()) == {"usable"}
    assert "not usable" not in screen.lower()
    assert "Nothing has to be changed." in screen
    # the answers agree with the numbers
    genes = next(t for t in content["sections"]["denoising"]["tables"] if "gene" in t["columns"])
    assert f"for {sum(genes['columns']['trusted'])} of 120 features" in screen
    outlying = content["sections"]["cells"]["tables"][0]["columns"]["is_outlying"]
    # 300 held-out cells are too few to find one of 1000 cells
    assert not any(outlying)
    assert "No single cell could be flagged" in screen
    assert "the smallest possible p-value is 0.003" in screen


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_collapsed_model(tmp_path, monkeypatch):
    content, screen = judged(cells(), tmp_path, monkeypatch, beta=100.0)
    assert content["answer"] == "not usable"
    assert "The latent space has collapsed" in screen
    assert "rescue()" in screen
    assert content["sections"]["cells"]["verdict"] == "not interpretable"
    assert content["sections"]["cells"]["lists"] == {}


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_model_of_normalised_values(tmp_path, monkeypatch):
    adata = cells()
    sc.pp.normalize_total(adata, target_sum=1e4)
    sc.pp.log1p(adata)
    content, screen = judged(adata, tmp_path, monkeypatch, max_epochs=10)
    assert content["answer"] == "not usable"
    assert "The registered values are not counts" in screen
    assert "Register raw counts" in screen


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_model_of_shuffled_genes(tmp_path, monkeypatch):
    adata, rng = cells(), np.random.default_rng(0)
    adata.X = np.column_stack([rng.permutation(gene) for gene in adata.X.toarray().T])
    content, screen = judged(adata, tmp_path, monkeypatch)
    assert content["answer"] == "not usable"
    assert "The counts have no shared signal" in screen


def test_a_batch_that_is_confounded_with_the_condition(tmp_path, monkeypatch):
    adata = cells()
    adata.obs["condition"] = adata.obs["batch"].map({"batch_0": "healthy", "batch_1": "disease"})
    content, screen = judged(adata, tmp_path, monkeypatch)
    assert content["purposes"]["conditions"] == "not usable"
    assert content["answer"] == "usable with care"
    assert "obs['condition'] is confounded with the batch" in screen
