"""Reports of real counts: a good model, and the same counts with one fault each."""

from __future__ import annotations

import numpy as np
import pytest
import scanpy as sc
import scvi
import torch

from betavi import BetaVI
from tests.brief import repeat_less
from tests.model.report.markup import Page, first_screen

pytestmark = pytest.mark.slow

SECTIONS = ["data", "training", "latent", "counts"]
KEPT = {"map": "usable", "dimensions": "usable", "genes": "not measured"}


def shuffled(adata):
    rng = np.random.default_rng(0)
    adata.X = np.column_stack([rng.permutation(gene) for gene in adata.X.toarray().T])


def normalised(adata):
    sc.pp.normalize_total(adata, target_sum=1e4)
    sc.pp.log1p(adata)


def judged(adata, folder, monkeypatch, setup=None, **arguments):
    """Return the content of a report, and the words of its first screen."""
    repeat_less(monkeypatch.setattr)
    scvi.settings.seed = 0
    torch.set_num_threads(1)
    BetaVI.setup_anndata(adata, **setup or {})
    model = BetaVI(adata, **arguments)
    model.train(50, train_size=0.8, enable_progress_bar=False)
    content = model.report(folder / "report.html", sections=SECTIONS, show_progress=False)
    text = (folder / "report.html").read_text(encoding="utf-8")
    assert Page(text).faults == []
    return content, first_screen(text)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    ("change", "beta", "answer", "words"),
    [
        (None, 1.0, "usable", "The tests found nothing"),
        (None, 100.0, "not usable", "The latent space has collapsed"),
        (shuffled, 1.0, "not usable", "The counts have no shared signal"),
        (normalised, 1.0, "not usable", "The registered values are not counts"),
    ],
)
def test_a_fault_of_the_mouse_cortex_is_on_the_first_screen(
    real, tmp_path, monkeypatch, change, beta, answer, words
):
    adata = real("zeisel_1464x1000.h5ad")
    if change is not None:
        change(adata)
    content, screen = judged(adata, tmp_path, monkeypatch, beta=beta)
    assert content["answer"] == answer, content["findings"]
    assert words in screen
    if answer == "usable":
        assert content["purposes"] == KEPT


def test_samples_of_one_condition_are_confounded_with_it(real, tmp_path, monkeypatch):
    adata = real("kang_muscat.h5ad")
    content, screen = judged(adata, tmp_path, monkeypatch, setup={"batch_key": "sample_id"})
    assert content["purposes"] == KEPT | {"conditions": "not usable"}
    assert "obs['group_id'] is confounded with the batch, obs['sample_id']" in screen
    # cell types are in all samples
    assert "obs['cluster_id'] is" not in screen
