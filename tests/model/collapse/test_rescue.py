from __future__ import annotations

import copy

import numpy as np
import pandas as pd
import pytest
import torch
from lightning.pytorch.trainer.states import TrainerStatus

from betavi import BetaVI
from betavi.datasets import simulate_counts
from betavi.diagnostics import best_remedy
from betavi.model import REMEDIES
from betavi.model.collapse.remedies import Remedy, sorted_remedies
from tests.conftest import BRIEF

QUIET = {"show_progress": False, "accelerator": "cpu"}


def trained(n_cells=1200, max_epochs=40, **kwargs):
    adata = simulate_counts(
        n_cells=n_cells, n_factors=3, n_types=1, n_batches=1, spread_within_type=1.0
    )
    BetaVI.setup_anndata(adata)
    model = BetaVI(adata, n_latent=5, **kwargs)
    model.train(**BRIEF | {"max_epochs": max_epochs}, train_size=0.8, collapse_guard=False)
    return model


def likelihood(model):
    torch.manual_seed(1)
    return float(model.get_marginal_ll(indices=model.validation_indices, n_mc_samples=50))


@pytest.mark.slow
def test_a_collapsed_model_is_brought_back(tmp_path):
    model = trained(beta=300.0)
    before, held_out = likelihood(model), model.validation_indices
    report = model.rescue(max_epochs=64, **QUIET)
    tried = report.tried
    # what is made for the cause that was found comes first, and the best is brought to its end
    order = ["anneal", "encoder", "free_bits", "restart"]
    assert tried.index[:-1].tolist() == ["nothing", *order]
    assert tried.index[-1] == report.chosen
    assert tried["epochs"].tolist() == [0, 4, 4, 4, 4, 64 - 3 * 4]
    assert (report.before.verdict, report.after.active_dimensions >= 3) == ("collapsed", True)
    assert tried["log_likelihood"].idxmax() == report.chosen
    assert likelihood(model) > before + 1
    np.testing.assert_array_equal(model.validation_indices, held_out)
    # the β it was rescued at is its own from now on
    assert model.module.beta_condition.beta == tried["beta"][report.chosen] < 2
    model.save(tmp_path / "model", save_anndata=True)
    loaded = BetaVI.load(tmp_path / "model")
    assert loaded.module.beta_condition.beta == model.module.beta_condition.beta
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
    monkeypatch.setattr("betavi.model.collapse.rescue.finish", spoil)
    model = trained(n_cells=300, max_epochs=10, beta=300.0)
    module, weights = model.module, copy.deepcopy(model.module.state_dict())
    trainer, history = model.trainer, model.history_
    report = model.rescue(max_epochs=2, remedies=["anneal"], **QUIET)
    assert report.chosen == "nothing"
    assert (report.tried["gain"][1:] < 0).tolist() == [True, True]
    assert report.after is report.before
    assert (model.module is module, model.trainer is trainer, model.history_ is history) == (
        True, True, True,
    )  # fmt: skip
    for name, value in model.module.state_dict().items():
        torch.testing.assert_close(value, weights[name], rtol=0, atol=0, equal_nan=True)
    assert "The model is unchanged" in str(report)


@pytest.mark.slow
def test_nothing_is_tried_where_nothing_is_wrong():
    model = trained()
    report = model.rescue(**QUIET)
    assert report.tried.index.tolist() == ["nothing"]
    assert not report.is_changed
    assert "No remedy was tried" in str(report)


def test_what_cannot_be_rescued(counts):
    BetaVI.setup_anndata(counts)
    model = BetaVI(counts)
    with pytest.raises(RuntimeError, match="not trained"):
        model.rescue()
    model.train(**BRIEF, train_size=1.0)
    with pytest.raises(ValueError, match="No cells were held out"):
        model.rescue()
    with pytest.raises(ValueError, match="sets warmup itself"):
        model.rescue(warmup=0.5)
    with pytest.raises(ValueError, match="sets n_epochs_kl_warmup itself"):
        model.rescue(plan_kwargs={"n_epochs_kl_warmup": 5})
    with pytest.raises(ValueError, match="4 remedies need at least one epoch each"):
        model.rescue(max_epochs=3)
    with pytest.raises(ValueError, match="'encoder', 'anneal', 'free_bits', 'restart', not 'pray'"):
        model.rescue(remedies=["pray"])
    model = BetaVI(counts, beta=(0.1, 10))
    model.train(**BRIEF)
    with pytest.raises(ValueError, match="range of β"):
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


def test_what_is_made_for_a_cause_is_tried_first():
    for name, remedy in REMEDIES.items():
        for cause in remedy.treats:
            assert sorted_remedies([cause])[0] == name
    assert sorted_remedies([]) == list(REMEDIES)


@pytest.mark.slow
def test_an_interrupted_rescue_tries_no_more(monkeypatch):
    def interrupt(model, max_epochs, kwargs):
        model.train(max_epochs, **kwargs)
        model.trainer.state.status = TrainerStatus.INTERRUPTED

    monkeypatch.setitem(REMEDIES, "encoder", Remedy(interrupt))
    model = trained(n_cells=300, max_epochs=10, beta=300.0)
    report = model.rescue(max_epochs=8, remedies=["encoder", "restart"], **QUIET)
    assert report.tried.index.tolist() == ["nothing", "encoder"]
