"""The weights of the best epoch are kept."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import Callback

import betavi
from betavi import BetaVI

OPTIONS = {
    "max_epochs": 16, "enable_progress_bar": False, "accelerator": "cpu", "batch_size": 30,
    "plan_kwargs": {"lr": 0.03},
}  # fmt: skip


class Weights(Callback):
    """Keep the weights of each epoch."""

    def __init__(self):
        self.of_epochs = []

    def on_validation_end(self, trainer, plan):
        state = plan.module.state_dict()
        self.of_epochs.append({name: value.clone() for name, value in state.items()})


class Spoil(Callback):
    """Add noise to the weights in the last epochs."""

    def on_train_epoch_start(self, trainer, plan):
        if trainer.current_epoch >= 12:
            for parameter in plan.module.parameters():
                parameter.data.mul_(1.2)


@pytest.fixture
def model():
    adata = betavi.datasets.simulate_counts(n_cells=90, n_genes=40)
    BetaVI.setup_anndata(adata)
    return BetaVI(adata, n_latent=5, beta=0.01)


def test_the_best_epoch_after_the_warmup_is_kept(model):
    seen = Weights()
    model.train(keep_best=True, callbacks=[Spoil(), seen], **OPTIONS)
    losses = model.history["validation_loss"]["validation_loss"].to_numpy(float)
    assert len(losses) == 16
    # β has its full value at the end of the fourth epoch
    best = 3 + losses[3:].argmin()
    assert best < 12
    for name, value in model.module.state_dict().items():
        if name != "trained_beta":
            kept = seen.of_epochs[best][name]
            torch.testing.assert_close(value, kept, rtol=0, atol=0, equal_nan=True)
    assert model.module.settled_beta == pytest.approx(0.01)


def test_by_default_counts_keep_the_last_epoch(model):
    seen = Weights()
    model.train(callbacks=[seen], check_val_every_n_epoch=1, **OPTIONS)
    for name, parameter in model.module.named_parameters():
        torch.testing.assert_close(parameter, seen.of_epochs[-1][name], rtol=0, atol=0)


def test_without_held_out_cells_the_last_epoch_is_kept(model):
    model.train(keep_best=True, train_size=1.0, **OPTIONS)
    assert np.isfinite(model.get_latent_representation()).all()


def test_with_a_target_the_rate_of_the_kept_epoch_is_near_it(model):
    model.train(keep_best=True, target_rate=3.0, **OPTIONS | {"max_epochs": 100})
    # within 5 % in the kept epoch
    assert model.module.controller.smooth_rate.item() == pytest.approx(3.0, rel=0.051)
    assert model.module.settled_beta == pytest.approx(model.module.beta_condition.beta, rel=1e-4)


@pytest.mark.parametrize("value", ["yes", 2])
def test_other_values_are_refused(model, value):
    with pytest.raises((TypeError, ValueError), match="keep_best"):
        model.train(keep_best=value)
    assert not model.is_trained
