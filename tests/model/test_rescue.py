from __future__ import annotations

import copy

import numpy as np
import pandas as pd
import pytest
import torch

from betavi import BetaVI
from betavi.datasets import simulate_counts
from betavi.diagnostics import best_remedy
from betavi.model import REMEDIES
from betavi.model.rescue import Remedy
from tests.conftest import BRIEF

QUIET = {"show_progress": False, "accelerator": "cpu"}


def trained(**kwargs):
    adata = simulate_counts(
        n_cells=1200, n_factors=3, n_types=1, n_batches=1, spread_within_type=1.0
    )
    BetaVI.setup_anndata(adata)
    model = BetaVI(adata, n_latent=5, **kwargs)
    model.train(**BRIEF | {"max_epochs": 40}, train_size=0.8, collapse_guard=False)
    return model


def likelihood(model):
    torch.manual_seed(1)
    return float(model.get_marginal_ll(indices=model.validation_indices, n_mc_samples=50))


def test_a_collapsed_model_is_brought_back(tmp_path):
    model = trained(beta=300.0)
    before, held_out = likelihood(model), model.validation_indices
    report = model.rescue(max_epochs=40, **QUIET)
    assert report.tried.index.tolist() == ["nothing", *REMEDIES]
    assert report.is_changed
    assert (report.before.verdict, report.after.active_dimensions >= 3) == ("collapsed", True)
    # no worse than beginning again with as many epochs
    assert (
        report.tried["log_likelihood"][report.chosen] >= report.tried["log_likelihood"]["restart"]
    )
    assert likelihood(model) > before + 1
    np.testing.assert_array_equal(model.validation_indices, held_out)
    # the β it was rescued at is its own from now on
    assert model.module.dial.beta == report.tried["beta"][report.chosen] < 2
    model.save(tmp_path / "model", save_anndata=True)
    loaded = BetaVI.load(tmp_path / "model")
    assert loaded.module.dial.beta == model.module.dial.beta
    np.testing.assert_array_equal(
        loaded.get_latent_representation(), model.get_latent_representation()
    )
    assert report.chosen in str(report)
    assert "<table" in report._repr_html_()


def test_what_does_not_help_is_rolled_back(monkeypatch):
    def spoil(model, max_epochs, kwargs):
        model.train(1, **kwargs)
        with torch.no_grad():
            for parameter in model.module.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))

    monkeypatch.setitem(REMEDIES, "anneal", Remedy(spoil))
    model = trained(beta=300.0)
    module, weights = model.module, copy.deepcopy(model.module.state_dict())
    trainer, history = model.trainer, model.history_
    report = model.rescue(max_epochs=1, remedies=["anneal"], **QUIET)
    assert report.chosen == "nothing"
    assert report.tried["gain"]["anneal"] < 0
    assert report.after is report.before
    assert (model.module is module, model.trainer is trainer, model.history_ is history) == (
        True, True, True,
    )  # fmt: skip
    for name, value in model.module.state_dict().items():
        torch.testing.assert_close(value, weights[name], rtol=0, atol=0, equal_nan=True)
    assert "the model is as it was" in str(report)


def test_nothing_is_tried_where_nothing_is_wrong():
    model = trained()
    report = model.rescue(**QUIET)
    assert report.tried.index.tolist() == ["nothing"]
    assert not report.is_changed
    assert "nothing was tried" in str(report)


def test_what_cannot_be_rescued(counts):
    BetaVI.setup_anndata(counts)
    model = BetaVI(counts)
    with pytest.raises(ValueError, match="not trained"):
        model.rescue()
    model.train(**BRIEF, train_size=1.0)
    with pytest.raises(ValueError, match="held no cells out"):
        model.rescue()
    with pytest.raises(ValueError, match="sets its own warmup"):
        model.rescue(warmup=0.5)
    with pytest.raises(ValueError, match="'encoder', 'anneal', 'free_bits', 'restart', not 'pray'"):
        model.rescue(remedies=["pray"])
    model = BetaVI(counts, beta=(0.1, 10))
    model.train(**BRIEF)
    with pytest.raises(ValueError, match="of many β"):
        model.rescue()


def test_the_best_remedy_is_surely_better():
    columns = ["log_likelihood", "gain", "gain_error", "active_dimensions"]

    def best(**rows):
        rows = {"nothing": [-90.0, 0.0, 0.0, 2]} | rows
        return best_remedy(pd.DataFrame.from_dict(rows, orient="index", columns=columns))

    assert best() == "nothing"
    assert best(a=[-89.9, 0.1, 0.2, 2]) == "nothing"
    # dimensions that a likelihood does not reward may well carry noise
    assert best(a=[-89.9, 0.1, 0.2, 3]) == "nothing"
    assert best(a=[-90.1, -0.1, 0.2, 5]) == "nothing"
    assert best(a=[-89, 1, 0.2, 1], b=[-88, 2, 0.2, 0]) == "b"
