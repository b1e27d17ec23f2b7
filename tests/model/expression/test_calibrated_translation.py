"""Intervals of a translation, calibrated on the model's held-out cells."""

from __future__ import annotations

import warnings

import mudata
import numpy as np
import pytest
import scvi

from betavi import JointVI
from betavi.datasets import simulate_multiome
from betavi.diagnostics import is_inside

LIKELIHOODS = {"rna": "nb", "adt": "nb_mixture"}
OPTIONS = {"n_samples": 50, "scale": "log1p", "show_progress": False}
CALIBRATED = "is_calibrated"


def paired(n_cells=900, n_batches=1, seed=3):
    mdata = simulate_multiome(
        n_cells, n_genes=60, n_peaks=0, n_proteins=12, n_batches=n_batches, seed=seed
    )
    if "batch" not in mdata.obs:
        mdata.obs["batch"] = mdata["rna"].obs["batch"].astype(str)
        mdata.obs["cell_type"] = mdata["rna"].obs["cell_type"].astype(str)
    return mdata


def without_protein(mdata, hidden):
    """Return an object without the protein of some cells, with the obs of all."""
    parts = mudata.MuData({"rna": mdata["rna"].copy(), "adt": mdata["adt"][~hidden].copy()})
    for key in ("batch", "cell_type"):
        parts.obs[key] = mdata.obs[key].astype(str).reindex(parts.obs_names)
    return parts


def trained(mdata, batch_key=None, train_size=0.7, max_epochs=20):
    scvi.settings.seed = 0
    JointVI.setup_mudata(mdata, LIKELIHOODS, batch_key=batch_key)
    model = JointVI(mdata, n_latent=5, n_hidden=32)
    model.train(max_epochs=max_epochs, train_size=train_size, enable_progress_bar=False)
    return model


@pytest.fixture(scope="module")
def hidden_at_random():
    mdata = paired()
    hidden = np.random.default_rng(0).random(mdata.n_obs) < 0.4
    return mdata, hidden, trained(without_protein(mdata, hidden))


def of_hidden(mdata, hidden, model, **options):
    cells = model.adata.obs_names.get_indexer(mdata.obs_names[hidden])
    found = model.translate("rna", "adt", indices=cells, **OPTIONS | options)
    truth = np.log1p(mdata["adt"][found.obs_names].X.toarray())
    return found, is_inside(truth, found.layers["lower"], found.layers["upper"])


def test_intervals_of_a_poor_model_hold_after_calibration(hidden_at_random):
    mdata, hidden, model = hidden_at_random
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        found, inside = of_hidden(mdata, hidden, model)
    assert inside.mean() == pytest.approx(0.9, abs=0.04)
    # the report is about new cells: it agrees with the hidden ones within its error
    errors = np.abs(found.var["coverage"] - inside.mean(axis=0)) / found.var["coverage_error"]
    assert errors.median() < 2
    assert found.obs[CALIBRATED].mean() > 0.95
    assert found.uns["coverage_by_batch"]["held_out_cells"].sum() > 100


def test_means_do_not_depend_on_calibration_and_calls_repeat(hidden_at_random):
    mdata, hidden, model = hidden_at_random
    results = []
    for calibrate in (True, False, True):
        scvi.settings.seed = 1
        results.append(of_hidden(mdata, hidden, model, calibrate=calibrate)[0])
    np.testing.assert_array_equal(results[0].X, results[1].X)
    np.testing.assert_array_equal(results[0].layers["upper"], results[2].layers["upper"])
    assert (results[0].layers["upper"] != results[1].layers["upper"]).any()
    assert list(results[1].var.columns) == []


def test_a_hidden_batch_is_said():
    mdata = paired(n_batches=3)
    hidden = (mdata.obs["batch"] == mdata.obs["batch"].iloc[0]).to_numpy()
    model = trained(without_protein(mdata, hidden), "batch")
    with pytest.warns(UserWarning, match="in batches with fewer than 10 held-out cells"):
        found, _ = of_hidden(mdata, hidden, model)
    assert not found.obs[CALIBRATED].any()


def test_a_hidden_type_is_said():
    mdata = paired(n_cells=1500)
    hidden = (mdata.obs["cell_type"] == "type_0").to_numpy()
    model = trained(without_protein(mdata, hidden), max_epochs=40)
    with pytest.warns(UserWarning, match="are unlike all cells whose target was measured"):
        found, _ = of_hidden(mdata, hidden, model)
    assert found.obs[CALIBRATED].mean() < 0.8


@pytest.mark.parametrize("case", ["no held-out cells", "another object", "minified"])
def test_intervals_that_cannot_be_calibrated_are_said(case, tmp_path):
    mdata = paired(300)
    model = trained(mdata, train_size=1.0 if case == "no held-out cells" else 0.7, max_epochs=2)
    remedy = "Hold out more cells"
    if case == "another object":
        model.save(tmp_path / "model")
        model = JointVI.load(tmp_path / "model", adata=mdata[:150].copy())
        remedy = "with the object that it was trained on"
    if case == "minified":
        model.minify_mudata()
        remedy = "with the original object"
    with pytest.warns(UserWarning, match=remedy):
        found = model.translate("rna", "adt", **OPTIONS)
    assert not found.obs[CALIBRATED].any()
    assert "coverage" not in found.var


def test_predictability_reports_coverage_with_its_error(hidden_at_random):
    _, _, model = hidden_at_random
    table = model.predictability("rna", "adt", show_progress=False)
    assert table["coverage"].mean() == pytest.approx(0.9, abs=0.04)
    assert table["coverage_error"].between(0.005, 0.1).all()
