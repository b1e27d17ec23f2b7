from __future__ import annotations

import signal

import numpy as np
import pytest
from lightning.pytorch.callbacks import Callback

from betavi import BetaVI
from betavi.data import DataSplitter
from tests.conftest import BRIEF

# 300 simulated cells: 23 minibatches of 13 leave one cell over
LEAVES_ONE = {"train_size": 1.0, "batch_size": 13} | BRIEF


class Raising(Callback):
    def __init__(self, error):
        self.error = error

    def on_train_epoch_start(self, trainer, plan):
        if trainer.current_epoch == 1:
            raise self.error


@pytest.fixture
def untrained(counts):
    BetaVI.setup_anndata(counts, batch_key="batch")
    return BetaVI(counts, n_latent=4)


def test_a_last_minibatch_of_one_cell_is_refused_by_name(untrained):
    with pytest.raises(ValueError, match=r"300 training cells in minibatches of 13.*one cell"):
        untrained.train(**LEAVES_ONE)
    assert not untrained.is_trained


def test_minibatches_of_one_cell_are_refused(untrained):
    with pytest.raises(ValueError, match="minibatches of 1 leave"):
        untrained.train(batch_size=1, datasplitter_kwargs={"drop_last": True}, **BRIEF)


def test_an_object_of_one_cell_cannot_be_split(counts):
    one = counts[:1].copy()
    BetaVI.setup_anndata(one)
    with pytest.raises(ValueError, match="leaves none of the 1 cells for training"):
        BetaVI(one).train(**BRIEF)


@pytest.mark.parametrize("train_size", [0.9, 1.0])
@pytest.mark.parametrize("batch_size", [7, 13, 64, 300])
@pytest.mark.parametrize("drop_last", [False, True])
def test_the_splitter_foretells_the_smallest_minibatch(counts, train_size, batch_size, drop_last):
    BetaVI.setup_anndata(counts)
    manager = BetaVI._get_most_recent_anndata_manager(counts)
    splitter = DataSplitter(
        manager, train_size=train_size, batch_size=batch_size, drop_last=drop_last
    )
    splitter.setup()
    sizes = [len(minibatch["X"]) for minibatch in splitter.train_dataloader()]
    assert not sizes or min(sizes) == splitter.smallest_minibatch()


def test_a_last_minibatch_of_one_cell_is_dropped_if_asked(untrained):
    untrained.train(datasplitter_kwargs={"drop_last": True}, **LEAVES_ONE)
    assert untrained.is_trained


def test_without_batch_normalisation_one_cell_is_enough(counts):
    BetaVI.setup_anndata(counts)
    model = BetaVI(counts, use_batch_norm="none")
    model.train(**LEAVES_ONE)
    assert np.isfinite(model.get_latent_representation()).all()


def test_an_interrupted_model_is_kept(untrained):
    handler = signal.getsignal(signal.SIGINT)
    with pytest.warns(UserWarning, match="interrupted in epoch 2 of 5"):
        untrained.train(**BRIEF | {"max_epochs": 5, "callbacks": [Raising(KeyboardInterrupt())]})
    assert signal.getsignal(signal.SIGINT) is handler
    assert untrained.is_trained
    assert len(untrained.train_indices) == 270
    assert len(untrained.history["elbo_train"]) == 1
    assert np.isfinite(untrained.get_latent_representation()).all()
    untrained.train(**BRIEF)
    assert len(untrained.history["elbo_train"]) == 3


@pytest.mark.parametrize("error", [RuntimeError("no memory"), SystemExit(3)])
def test_any_other_end_of_a_run_is_passed_on(untrained, error):
    with pytest.raises(type(error)):
        untrained.train(**BRIEF | {"max_epochs": 5, "callbacks": [Raising(error)]})
    assert not untrained.is_trained


def test_early_stopping_needs_cells_to_validate_on(untrained):
    with pytest.raises(ValueError, match="validation"):
        untrained.train(train_size=1.0, early_stopping=True, **BRIEF)
