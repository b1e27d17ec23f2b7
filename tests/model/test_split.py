"""Cells that training has seen, and cells held out, before and after loading."""

from __future__ import annotations

import numpy as np
import pytest

from betavi import BetaVI
from betavi.datasets import simulate_counts
from tests.conftest import BRIEF


@pytest.fixture(scope="module")
def split():
    adata = simulate_counts(n_cells=300, n_genes=20, seed=0)
    BetaVI.setup_anndata(adata)
    model = BetaVI(adata, n_latent=3)
    model.train(train_size=0.5, validation_size=0.4, **BRIEF)
    return model


@pytest.fixture(params=["trained", "loaded", "loaded with its object"])
def model(split, request, tmp_path):
    if request.param == "trained":
        return split
    has_own = request.param == "loaded with its object"
    split.save(tmp_path / "model", save_anndata=has_own)
    loaded = BetaVI.load(tmp_path / "model", adata=None if has_own else split.adata.copy())
    assert not hasattr(loaded, "trainer")
    return loaded


def test_cells_are_split_as_in_training(split, model):
    assert (len(split.train_indices), len(split.validation_indices)) == (150, 120)
    np.testing.assert_array_equal(model.seen(model.adata), split.train_indices)
    np.testing.assert_array_equal(model.held_out(model.adata), split.validation_indices)
    assert not model.has_seen(model.adata, split.validation_indices)
    assert not model.has_seen(model.adata, split.test_indices)
    assert model.has_seen(model.adata, np.append(split.validation_indices, split.train_indices[0]))


def test_a_diagnosis_says_whether_its_cells_were_held_out(split, model):
    assert model.diagnose(show_progress=False).is_held_out
    seen = model.diagnose(indices=split.train_indices, show_progress=False)
    assert not seen.is_held_out


def test_nothing_of_another_object_was_seen(split, model):
    other = simulate_counts(n_cells=80, n_genes=20, seed=1)
    everyone = np.arange(80)
    np.testing.assert_array_equal(model.seen(other), everyone)
    np.testing.assert_array_equal(model.held_out(other), everyone)
    assert not model.has_seen(other, everyone)


def test_a_model_loaded_for_other_cells_has_seen_none_of_them(split, tmp_path):
    split.save(tmp_path / "model")
    other = simulate_counts(n_cells=80, n_genes=20, seed=1)
    model = BetaVI.load(tmp_path / "model", adata=other)
    np.testing.assert_array_equal(model.seen(other), np.arange(80))
    np.testing.assert_array_equal(model.held_out(other), np.arange(80))
    assert not model.has_seen(other, np.arange(80))


def test_an_untrained_model_has_seen_nothing():
    adata = simulate_counts(n_cells=80, n_genes=20, seed=1)
    BetaVI.setup_anndata(adata)
    model = BetaVI(adata)
    np.testing.assert_array_equal(model.seen(adata), np.arange(80))
    np.testing.assert_array_equal(model.held_out(adata), np.arange(80))
    assert not model.has_seen(adata, np.arange(80))
