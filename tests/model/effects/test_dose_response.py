"""Half-effective doses, beside the truth of simulated screens."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from betavi import EffectVI
from tests.model.effects.screens import fitted, screen, true_change

DOSES = (0.1, 0.3, 1, 3, 10)
KEYS = {"dose_key": "dose"}


@pytest.fixture(scope="module")
def fits():
    """Screens with doses, their models, and tables with the truth."""
    found = []
    for seed in range(3):
        adata = screen(4000, n_perturbations=6, n_combinations=0, doses=DOSES, seed=seed)
        model = fitted(adata, keys=KEYS)
        truth = adata.uns["truth"]["dose_curves"].add_prefix("true_")
        found.append((adata, model, model.dose_response().join(truth)))
    return found


@pytest.fixture(scope="module")
def table(fits):
    return pd.concat([table for _, _, table in fits])


def test_half_effective_doses_are_recovered(table):
    ratio = np.abs(np.log(table["ec50"] / table["true_ec50"]))
    assert (ratio < np.log(1.5)).mean() > 0.8
    assert np.median(ratio) < np.log(1.2)
    assert table["is_determined"].mean() > 0.8


def test_intervals_hold_the_true_dose(table):
    inside = (table["lower"] <= table["true_ec50"]) & (table["true_ec50"] <= table["upper"])
    assert inside.mean() > 0.7
    assert (table["lower"] < table["ec50"]).all()
    assert (table["ec50"] < table["upper"]).all()


@pytest.mark.slow
@pytest.mark.parametrize("n_cells", [4000, 30_000])
def test_intervals_are_calibrated_with_few_and_with_many_counts(n_cells):
    inside = []
    for seed in range(4):
        adata = screen(n_cells, n_perturbations=8, n_combinations=0, doses=DOSES, seed=seed)
        table = fitted(adata, keys=KEYS).dose_response()
        truth = adata.uns["truth"]["dose_curves"]["ec50"].loc[table.index]
        inside += ((table["lower"] < truth) & (truth < table["upper"])).tolist()
    assert 0.82 < np.mean(inside) <= 1


def test_slopes_are_recovered(table):
    ratio = np.abs(np.log(table["slope"] / table["true_slope"]))
    assert np.median(ratio) < np.log(1.3)


def test_a_lower_level_has_narrower_intervals(fits):
    _, model, _ = fits[0]
    wide, narrow = model.dose_response(level=0.99), model.dose_response(level=0.5)
    assert (narrow["lower"] >= wide["lower"]).all()
    assert (narrow["upper"] < wide["upper"]).all()
    pd.testing.assert_series_equal(narrow["ec50"], wide["ec50"])


def test_some_perturbations_by_name(fits):
    _, model, table = fits[0]
    columns = ["ec50", "lower", "upper", "slope", "is_determined"]
    assert model.dose_response().columns.tolist() == columns
    assert model.dose_response("P2").index.tolist() == ["P2"]
    found = model.dose_response(["P3", "P0"])
    pd.testing.assert_frame_equal(found, table.loc[["P3", "P0"], columns])


def test_a_perturbation_without_effects_has_no_determined_dose():
    adata = screen(2000, n_genes=60, n_perturbations=3, n_combinations=0, doses=DOSES)
    rng = np.random.default_rng(0)
    cells = np.flatnonzero(adata.obs["perturbation"] == "P1")
    controls = np.flatnonzero(adata.obs["perturbation"] == "control")
    counts = adata.X.toarray()
    counts[cells] = counts[rng.choice(controls, len(cells))]
    adata.X = counts
    found = fitted(adata, keys=KEYS).dose_response()
    assert not found.loc["P1", "is_determined"]
    assert found.loc["P1", "upper"] > max(DOSES)


def test_half_of_the_effect_is_reached_at_the_dose(fits):
    adata, model, table = fits[0]
    name = table.index[np.argmin(np.abs(np.log(table["ec50"])))]
    half = model.predict(name, dose=table.loc[name, "ec50"]).layers["lfc"][0]
    full = model.predict(name, dose=1e9, extrapolate=True).layers["lfc"][0]
    changed = adata.uns["truth"]["effects"][name].abs().to_numpy() > 0.5
    slope = (half[changed] @ full[changed]) / (full[changed] @ full[changed])
    assert 0.4 < slope < 0.6
    truth = true_change(adata, name, dose=table.loc[name, "true_ec50"])
    assert np.corrcoef(half[changed], truth[changed])[0, 1] > 0.9


def test_curves_are_saved(fits, tmp_path):
    _, model, _ = fits[0]
    model.save(tmp_path / "model")
    loaded = EffectVI.load(tmp_path / "model", adata=False)
    pd.testing.assert_frame_equal(loaded.dose_response(), model.dose_response())


def test_what_has_no_curve_is_named(fits):
    _, model, _ = fits[0]
    with pytest.raises(KeyError, match="'P77' was not measured"):
        model.dose_response("P77")
    with pytest.raises(TypeError, match="`perturbation` must be a name"):
        model.dose_response(3)
    with pytest.raises(ValueError, match="`perturbation` is empty"):
        model.dose_response([])
    for level in (0, 1, -0.5):
        with pytest.raises(ValueError, match="`level` must be above 0 and below 1"):
            model.dose_response(level=level)
    with pytest.raises(ValueError, match=r"no doses. Pass `dose_key` to setup_anndata"):
        fitted(screen(300, n_genes=20)).dose_response()


def test_full_effects_of_genes(fits):
    adata, model, table = fits[0]
    truth = adata.uns["truth"]["effects"]
    inside, correlations = [], []
    for name in truth:
        found = model.dose_response(name, genes=adata.var_names.tolist())
        assert found["ec50"].unique().tolist() == [table.loc[name, "ec50"]]
        change = true_change(adata, name, dose=1e9)
        inside.append(((found["lower"] <= change) & (change <= found["upper"])).mean())
        correlations.append(np.corrcoef(found["lfc"], change)[0, 1])
    assert 0.8 < np.mean(inside) < 0.99
    assert np.min(correlations) > 0.9


def test_rows_of_genes(fits):
    adata, model, _ = fits[0]
    genes = adata.var_names[[3, 1]].tolist()
    found = model.dose_response(["P1", "P0"], genes=genes)
    columns = ["perturbation", "gene", "lfc", "lower", "upper", "ec50"]
    assert found.columns.tolist() == columns
    assert found["perturbation"].tolist() == ["P1", "P1", "P0", "P0"]
    assert found["gene"].tolist() == genes * 2
    one = model.dose_response("P0", genes=genes[1])
    pd.testing.assert_frame_equal(one, found.iloc[3:].reset_index(drop=True))
    far = model.predict("P0", dose=1e12, extrapolate=True)[:, genes[1]]
    assert one["lfc"].item() == pytest.approx(far.layers["lfc"].item(), abs=1e-4)
    narrow = model.dose_response("P0", genes=genes[1], level=0.5)
    assert narrow["lower"].item() > one["lower"].item()
    with pytest.raises(KeyError, match="`genes`: the model has no feature 'nothing'"):
        model.dose_response("P0", genes="nothing")
    with pytest.raises(ValueError, match="`genes` is empty"):
        model.dose_response("P0", genes=[])
