"""Information of the states about the perturbations."""

from __future__ import annotations

import numpy as np
import pytest

from betavi import BetaVI, EffectVI
from betavi.datasets import EffectDistribution
from betavi.model.effects.state import information
from tests.conftest import BRIEF
from tests.model.effects.screens import fitted, screen

STRONG = {"n_genes": 80, "n_combinations": 0, "effects": EffectDistribution(share_affected=0.5)}


@pytest.fixture(scope="module")
def adata():
    return screen(2500, **STRONG)


def test_states_hardly_depend_on_perturbations(adata):
    model = fitted(adata.copy(), max_epochs=6)
    found = model.state_information()
    assert found.index.tolist() == ["all cells"]
    assert found["nats"].item() < 0.05
    assert not found["depends"].item()
    assert found["n_cells"].item() == adata.n_obs
    assert found["n_conditions"].item() == 6
    assert found["entropy"].item() == pytest.approx(np.log(6), rel=0.05)


def test_states_of_a_model_without_effects_depend_on_them(adata):
    model = fitted(adata.copy(), max_epochs=6)
    model.module.head.effects.zero_()
    model.train(**BRIEF | {"max_epochs": 6})
    found = model.state_information()
    assert found["nats"].item() > 0.2
    assert found["depends"].item()


def test_contexts_are_read_one_by_one():
    adata = screen(1200, n_contexts=2, **STRONG)
    found = fitted(adata, keys={"context_key": "context"}).state_information()
    assert found.index.tolist() == ["context_0", "context_1"]
    assert found["n_cells"].sum() == adata.n_obs


def test_small_conditions_and_further_cells_are_left_out(adata, monkeypatch):
    model = fitted(adata.copy())
    monkeypatch.setattr("betavi.model.effects.state.MOST", 600)
    found = model.state_information()
    assert found["n_cells"].item() == 600
    again, other = model.state_information(), model.state_information(seed=1)
    assert found.equals(again)
    assert not found.equals(other)
    monkeypatch.setattr("betavi.model.effects.state.FEWEST", 10**6)
    with pytest.raises(ValueError, match="Fewer than two conditions have 1000000 cells"):
        model.state_information()


def test_information_is_that_of_the_classes():
    rng = np.random.default_rng(0)
    codes = rng.integers(4, size=2000)
    noise = rng.normal(size=(2000, 3))
    assert information(noise, codes)["nats"] < 0.01
    clear = information(np.eye(4)[codes] + 0.01 * noise[:, :1], codes)
    assert clear["nats"] == pytest.approx(np.log(4), rel=0.05)
    assert clear["depends"]
    half = information(np.column_stack([codes % 2, noise]), codes)
    assert half["nats"] == pytest.approx(np.log(2), rel=0.05)


def test_what_has_no_states_is_named(adata, tmp_path):
    model = fitted(adata.copy())
    with pytest.raises(ValueError, match="`seed` must be a whole number"):
        model.state_information(seed=-1)
    model.save(tmp_path / "model")
    loaded = EffectVI.load(tmp_path / "model", adata=False)
    with pytest.raises(ValueError, match=r"`state_information` reads cells.*load\(folder"):
        loaded.state_information()
    with pytest.raises(RuntimeError, match=r"not trained.*model\.train\(\)"):
        model.sibling().state_information()


@pytest.mark.slow
def test_stimulated_cells_have_the_states_of_controls(real):
    adata = real("kang_stim_ctrl_2000.h5ad")
    totals = np.asarray(adata.X.sum(axis=0)).ravel()
    adata = adata[:, np.argsort(-totals)[:1000]].copy()
    adata.obs["perturbation"] = adata.obs["stim"].astype(str)
    control = next(name for name in adata.obs["perturbation"].unique() if "ct" in name)
    model = fitted(adata, max_epochs=15, keys={"control": control}, n_latent=10)
    own = model.state_information()["nats"].item()
    BetaVI.setup_anndata(adata)
    plain = BetaVI(adata, n_latent=10, n_hidden=32)
    plain.train(**BRIEF | {"max_epochs": 15})
    codes = (adata.obs["perturbation"] != control).to_numpy().astype(int)
    baseline = information(plain.get_latent_representation(), codes)["nats"]
    assert baseline > 0.4
    assert own < 0.5 * baseline
