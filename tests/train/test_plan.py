from __future__ import annotations

import numpy as np
import pytest
import scvi

from betavi import BetaVI
from betavi.train.plan import mean_profile
from tests.conftest import BRIEF


@pytest.mark.parametrize("size_factor_key", [None, "size"])
@pytest.mark.parametrize("gene_likelihood", ["zinb", "poisson", "normal"])
def test_a_fresh_decoder_starts_at_the_mean_of_the_training_cells(
    counts, size_factor_key, gene_likelihood
):
    BetaVI.setup_anndata(counts, size_factor_key=size_factor_key)
    model = BetaVI(counts, gene_likelihood=gene_likelihood)
    assert model.module.is_fresh
    # a step of size zero leaves what was set before the first
    model.train(**BRIEF | {"max_epochs": 1}, plan_kwargs={"lr": 0.0, "weight_decay": 0.0})
    assert not model.module.is_fresh
    x = counts.X.toarray()[model.train_indices]
    sizes = (
        x.sum() if size_factor_key is None else counts.obs["size"].iloc[model.train_indices].sum()
    )
    expected = (x.sum(axis=0) + 0.5) / (sizes + (20 if size_factor_key is None else 0))
    head = model.module.likelihoods["X"]
    np.testing.assert_allclose(head.positive(head.unscaled.bias).detach(), expected, rtol=1e-4)


def test_trained_and_loaded_weights_are_kept(counts, model, tmp_path):
    def bias(of):
        return of.module.likelihoods["X"].unscaled.bias.detach().clone().numpy()

    still = BRIEF | {"plan_kwargs": {"lr": 0.0, "weight_decay": 0.0}}
    trained = bias(model)
    model.train(**still)
    np.testing.assert_array_equal(bias(model), trained)
    model.save(tmp_path / "model")
    loaded = BetaVI.load(tmp_path / "model", counts)
    loaded.train(**still)
    np.testing.assert_array_equal(bias(loaded), trained)
    query = counts[:60].copy()
    query.obs["batch"] = "new"
    mapped = BetaVI.load_query_data(query, model)
    mapped.train(**still)
    np.testing.assert_array_equal(bias(mapped), trained)


def test_cells_held_out_have_no_part_in_the_start(counts):
    BetaVI.setup_anndata(counts)
    manager = BetaVI._get_most_recent_anndata_manager(counts)
    cells = np.random.default_rng(0).permutation(300)[:200]
    before = mean_profile(manager, "X", cells)
    held_out = np.setdiff1d(np.arange(300), cells)
    x = counts.X.tolil()
    x[held_out] = 7
    counts.X = x.tocsr()
    np.testing.assert_array_equal(mean_profile(manager, "X", cells), before)
    assert before.min() > 0
    assert before.sum() == pytest.approx(1)


def test_starting_at_the_mean_helps_a_short_run(counts, monkeypatch):
    held_out = {}
    for start_at_the_mean in (True, False):
        scvi.settings.seed = 0
        BetaVI.setup_anndata(counts)
        model = BetaVI(counts)
        model.module.is_fresh = start_at_the_mean
        model.train(**BRIEF | {"max_epochs": 5})
        held_out[start_at_the_mean] = float(model.get_elbo(indices=model.validation_indices))
    assert held_out[True] > held_out[False] + 1
