"""Measured cells in another condition, and intervals of new cells."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from betavi import EffectVI
from betavi.model.effects.cells import control_cells
from tests.model.effects.screens import fitted, screen, without


@pytest.fixture(scope="module")
def adata():
    return screen(2000, n_genes=80)


@pytest.fixture(scope="module")
def model(adata):
    return fitted(adata.copy(), max_epochs=4)


def cells_of(adata, condition, n=20):
    return adata.obs_names[adata.obs["perturbation"] == condition][:n]


def test_a_cell_in_its_own_condition_is_its_denoised_mean(model, adata):
    model.denoise(estimate="mean", layer_added="mean", show_progress=False)
    for condition in ("control", "P1", "P0+P1"):
        names = cells_of(adata, condition)
        if len(names):
            found = model.predict(condition, cells=names)
            np.testing.assert_allclose(found.X, model.adata[names].layers["mean"], rtol=1e-4)


def test_an_effect_multiplies_rates(model, adata):
    names = cells_of(adata, "control")
    control, changed = (model.predict(name, cells=names).X for name in ("control", "P1"))
    log_ratio = np.log(changed / control)
    effect = model.module.head.effects[1].numpy()
    # rates of a cell sum to its total count
    rest = log_ratio - effect
    np.testing.assert_allclose(rest, np.broadcast_to(rest[:, :1], rest.shape), atol=1e-5)
    totals = adata[names].X.sum(axis=1).A1
    np.testing.assert_allclose(changed.sum(axis=1), totals, rtol=1e-4)


def test_a_perturbed_cell_without_its_perturbation_resembles_controls(model, adata):
    names = cells_of(adata, "P1", 200)
    found = model.predict("control", cells=names)
    control = adata[adata.obs["perturbation"] == "control"].X.toarray()
    perturbed = adata[names].X.toarray()

    def profile(counts):
        return np.log(counts.sum(axis=0) / counts.sum() + 1e-4)

    expected = np.square(profile(found.X) - profile(control)).mean()
    assert expected < 0.4 * np.square(profile(perturbed) - profile(control)).mean()


def test_cells_by_name_position_or_mask_are_the_same(model, adata):
    names = cells_of(adata, "control", 3)
    positions, mask = adata.obs_names.get_indexer(names), adata.obs_names.isin(names)
    expected = model.predict("P0", cells=names)
    for cells in (list(names), positions, mask):
        np.testing.assert_array_equal(model.predict("P0", cells=cells).X, expected.X)
    assert expected.obs_names.equals(names)
    assert set(expected.obs["perturbation"]) == {"P0"}
    assert not any(column.startswith("_scvi") for column in expected.obs)


def test_blocks_leave_no_seam(model, monkeypatch):
    expected = model.predict("P0", cells=range(30)).X
    monkeypatch.setattr("betavi._blocks.ENCODED_CELLS", 7)
    np.testing.assert_allclose(model.predict("P0", cells=range(30)).X, expected, rtol=1e-5)


def test_contexts_and_doses_of_the_cells():
    adata = screen(900, n_genes=40, n_contexts=2, doses=(1, 10))
    keys = {"context_key": "context", "dose_key": "dose"}
    model = fitted(adata, keys=keys)
    found = model.predict("P0+P1", dose=[1.0, 10.0], cells=range(10))
    assert set(found.obs["dose"]) == {"1+10"}
    assert set(model.predict("P0", dose=10.0, cells=range(10)).obs["dose"]) == {10.0}
    assert set(model.predict("control", cells=range(10)).obs["dose"]) == {0.0}
    assert found.obs["context"].equals(adata.obs["context"].iloc[:10])
    estimate = model.module.stored_estimate()
    control = model.predict("control", cells=range(10)).X
    for row, context in enumerate(found.obs["context"].cat.codes):
        values = estimate.design.row([0, 1], [1.0, 10.0], int(context))
        effect = values @ model.module.head.effects.double().numpy()
        rest = np.log(found.X[row] / control[row]) - effect
        np.testing.assert_allclose(rest, rest[0], atol=1e-4)


def test_intervals_hold_most_counts_of_new_cells():
    adata = screen(3000)
    pair = next(iter(adata.uns["truth"]["interactions"]))
    model = fitted(without(adata, adata.obs["perturbation"] == pair), max_epochs=4)
    found = model.predict(["P0", pair])
    for row, name in enumerate(["P0", pair]):
        counts = adata[adata.obs["perturbation"] == name].X.toarray()
        shares = 1e4 * counts / counts.sum(axis=1, keepdims=True)
        lower, upper = found.layers["cell_lower"][row], found.layers["cell_upper"][row]
        assert 0.85 < ((shares >= lower) & (shares <= upper)).mean() < 0.97


def test_control_cells_are_those_of_the_context():
    adata = screen(400, n_genes=30, n_contexts=2)
    is_first = adata.obs["context"] == "context_0"
    is_control = adata.obs["perturbation"] == "control"
    model = fitted(adata, keys={"context_key": "context"})
    np.testing.assert_array_equal(control_cells(model, 0), np.flatnonzero(is_control & is_first))
    # a context without controls has those of the others
    rest = without(adata, is_first & is_control)
    model = fitted(rest, keys={"context_key": "context"})
    expected = np.flatnonzero(rest.obs["perturbation"] == "control")
    np.testing.assert_array_equal(control_cells(model, 0), expected)


def test_a_model_without_an_object_predicts_no_cells(model, tmp_path):
    model.save(tmp_path / "model")
    loaded = EffectVI.load(tmp_path / "model", adata=False)
    with pytest.raises(ValueError, match=r"`predict\(cells=\.\.\.\)` reads cells.*load\(folder"):
        loaded.predict("P0", cells=[0])
    assert "cell_lower" not in loaded.predict("P0").layers
    state = torch.get_rng_state()
    np.testing.assert_array_equal(loaded.predict("P0").X, model.predict("P0").X)
    assert torch.equal(state, torch.get_rng_state())
