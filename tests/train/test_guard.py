from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import Callback

from betavi import BetaVI
from betavi.datasets import simulate_counts
from betavi.diagnostics import dimension_information
from betavi.train import CollapseGuard
from tests.conftest import BRIEF


def build(**kwargs):
    adata = simulate_counts(n_cells=800, n_types=1, n_batches=1, spread_within_type=1.0)
    BetaVI.setup_anndata(adata)
    return BetaVI(adata, n_latent=5, **kwargs)


def told(model, **kwargs):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.train(**BRIEF | {"max_epochs": 40}, **kwargs)
    return [str(w.message) for w in caught if "collapsed" in str(w.message)]


@pytest.mark.slow
def test_a_healthy_run_is_followed_and_not_disturbed():
    model = build()
    assert told(model) == []
    active = model.history["active_dimensions"]["active_dimensions"].astype(float)
    information = model.history["mutual_information"]["mutual_information"].astype(float)
    assert len(active) == len(information) == 40
    assert information.iloc[-1] > 1
    # as the getters see it, but for dropout and the steps within the last epoch
    loc, variance = model.get_latent_representation(return_dist=True)
    assert active.iloc[-1] == pytest.approx(
        (dimension_information(loc, np.sqrt(variance)) > 0.1).sum(), abs=1
    )


@pytest.mark.slow
def test_the_guard_does_not_change_training():
    weights = []
    for guard in (True, False):
        torch.manual_seed(0)
        model = build()
        told(model, collapse_guard=guard)
        weights.append(model.module.z_encoders["X"].mean.weight)
        assert ("active_dimensions" in model.history) == guard
        assert not model.module._forward_hooks
    assert torch.equal(*weights)


def test_a_collapse_is_told_once_with_epoch_and_cause():
    (message,) = told(build(beta=500.0), warmup=0.5)
    assert "collapsed by epoch" in message
    assert "β = 500 is probably too high for the signal" in message
    assert "model.rescue()" in message


@pytest.mark.slow
def test_a_capacity_is_named_where_it_holds_the_rate():
    (message,) = told(build(beta=50.0), capacity=0.05)
    assert "kept at the capacity of 0.05 nats" in message


class _Interrupt(Callback):
    def on_train_epoch_end(self, trainer, pl_module):
        raise KeyboardInterrupt


def test_an_interrupted_run_is_no_longer_watched():
    model = build()
    told(model, callbacks=[_Interrupt()])
    assert model.trainer.interrupted
    assert not model.module._forward_hooks


@pytest.mark.slow
def test_a_guard_of_ones_own_is_not_doubled():
    guard = CollapseGuard()
    model = build()
    told(model, callbacks=[guard])
    assert sum(isinstance(c, CollapseGuard) for c in model.trainer.callbacks) == 1
    assert guard.peak > 1


@pytest.mark.slow
def test_a_rescue_in_training_brings_the_latent_space_back():
    model = build(beta=500.0)
    options = {"max_epochs": 150, "warmup": 0.1}
    with pytest.warns(UserWarning, match="rescue 1 of 3: β .* reduced value 125"):
        model.train(**BRIEF | options, collapse_guard="rescue")
    lost = build(beta=500.0)
    lost.train(**BRIEF | options)
    beta = model.history["beta"]["beta"].astype(float)
    # β is cut and climbs again from 0
    assert beta.iloc[-1] < 500
    assert beta.min() < 0.2 * beta.iloc[-1]
    # which is what the model has from then on, also in copies and when saved
    assert (
        model.module.beta_condition.beta
        == model._module_kwargs["beta"]
        == pytest.approx(beta.iloc[-1])
    )
    assert (
        BetaVI(model.adata, **model._module_kwargs).module.beta_condition.beta
        == model.module.beta_condition.beta
    )
    information = [m.history["mutual_information"].iloc[-1].item() for m in (model, lost)]
    assert information[0] > information[1]


@pytest.mark.slow
def test_many_betas_may_be_high_ones():
    model = build(beta=(0.1, 500.0))
    assert told(model) == []
    assert (model.history["mutual_information"]["mutual_information"].iloc[-1]) > 0.5


@pytest.mark.slow
def test_what_has_no_posterior_is_not_followed():
    model = build(latent_distribution="deterministic")
    assert told(model) == []
    assert "active_dimensions" not in model.history


@pytest.mark.parametrize(
    "steers", [{"target_rate": 2.0}, {"capacity": 2.0}, {"plan_kwargs": {"max_kl_weight": 0.1}}]
)
def test_a_rescue_beside_what_moves_beta_is_refused(steers):
    name = next(iter(steers.get("plan_kwargs", steers)))
    with pytest.raises(ValueError, match=f"'rescue' and {name} cannot be combined"):
        build().train(**BRIEF, collapse_guard="rescue", **steers)


def test_unknown_actions_are_refused():
    with pytest.raises(ValueError, match="'warn', 'rescue', not 'repair'"):
        build().train(**BRIEF, collapse_guard="repair")
