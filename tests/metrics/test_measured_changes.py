"""Measured changes of conditions have the names and the values of their cells' counts."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from betavi.datasets import simulate_perturbations
from betavi.metrics import measured_changes


def test_changes_are_ratios_of_shares():
    counts = np.array([[30, 10], [30, 10], [10, 30], [10, 30]])
    adata = AnnData(
        counts * 1000, obs=pd.DataFrame({"p": ["control"] * 2 + ["A"] * 2}, list("abcd"))
    )
    found = measured_changes(adata, "p")
    assert found.obs_names.tolist() == ["A"]
    assert found.obs["n_cells"].tolist() == [2]
    np.testing.assert_allclose(found.layers["lfc"], [[-np.log2(3), np.log2(3)]], rtol=1e-3)
    np.testing.assert_allclose(found.X, [[2500, 7500]], rtol=1e-3)
    # cells that do not vary have the noise of their counts
    expected = np.sqrt(1 / 60_000 + 1 / 20_000) / np.log(2)
    np.testing.assert_allclose(found.layers["lfc_error"], expected, rtol=1e-2)


def test_errors_are_those_of_repeated_samples():
    samples = [
        measured_changes(simulate_perturbations(400, 20, 2, seed=0)[rows].copy(), "perturbation")
        for rows in np.random.default_rng(0).integers(400, size=(60, 400))
    ]
    values = np.stack([sample.layers["lfc"][0] for sample in samples])
    errors = np.stack([sample.layers["lfc_error"][0] for sample in samples]).mean(axis=0)
    assert 0.8 < np.median(values.std(axis=0) / errors) < 1.2


def test_contexts_have_their_own_control_and_doses_are_rows():
    adata = simulate_perturbations(400, 20, 2, n_contexts=2, doses=(0.1, 1))
    keys = {"context_key": "context", "dose_key": "dose"}
    found = measured_changes(adata, "perturbation", **keys)
    assert len(found) == 8
    assert "P0 in context_1 at 0.1" in found.obs_names
    no_control = adata[
        (adata.obs["perturbation"] != "control") | (adata.obs["context"] == "context_0")
    ].copy()
    with pytest.raises(ValueError, match="'control' in the context 'context_1'"):
        measured_changes(no_control, "perturbation", **keys)


def test_missing_columns_layers_and_conditions_are_named():
    adata = simulate_perturbations(100, 20, 2)
    with pytest.raises(KeyError, match=r"no column 'perturbatio'. Did you mean 'perturbation'"):
        measured_changes(adata, "perturbatio")
    with pytest.raises(KeyError, match="no layer 'counts'"):
        measured_changes(adata, "perturbation", layer="counts")
    with pytest.raises(ValueError, match="No cell is a control, 'ctrl'"):
        measured_changes(adata, "perturbation", "ctrl")
    controls = adata[adata.obs["perturbation"] == "control"].copy()
    with pytest.raises(ValueError, match="All cells are controls"):
        measured_changes(controls, "perturbation")


def named(names, **columns):
    """Return three genes whose counts depend on the set of perturbations."""
    rates = {"A": [4, 1, 1], "B": [1, 4, 1]}
    counts = [np.prod([rates.get(part, [1, 1, 1]) for part in n.split("+")], axis=0) for n in names]
    obs = pd.DataFrame({"p": names} | columns, [f"c{i}" for i in range(len(names))])
    return AnnData(1000.0 * np.array(counts), obs=obs)


def test_names_are_those_of_the_model():
    names = ["ctrl", "ctrl+ctrl", "A+ctrl", "ctrl+B", "B", "B+A", "A+B"]
    found = measured_changes(named(names), "p", "ctrl")
    assert found.obs_names.tolist() == ["A", "A+B", "B"]
    assert found.obs["n_cells"].tolist() == [1, 2, 2]
    expected = np.log2([[4 / 2, 1 / 2, 1 / 2], [4 / 3, 4 / 3, 1 / 3], [1 / 2, 4 / 2, 1 / 2]])
    np.testing.assert_allclose(found.layers["lfc"], expected, atol=1e-2)
    other = named([name.replace("+", "|") for name in names])
    other.X = named(names).X
    again = measured_changes(other, "p", "ctrl", separator="|")
    assert again.obs_names.tolist() == ["A", "A|B", "B"]
    np.testing.assert_array_equal(again.X, found.X)
    with pytest.raises(ValueError, match="has an empty part"):
        measured_changes(named(["ctrl", "A+"]), "p", "ctrl")


def test_doses_of_combinations_are_read(tmp_path):
    names = ["control", "control", "A", "A+B", "B+A", "A+B", "B"]
    doses = ["0", "7", "1", "1+3", "3+1", "2", "0.5"]
    found = measured_changes(named(names, dose=doses), "p", dose_key="dose")
    assert found.obs_names.tolist() == ["A at 1", "A+B at 1+3", "A+B at 2", "B at 0.5"]
    assert found.obs["dose"].tolist() == ["1", "1+3", "2", "0.5"]
    assert found.obs["n_cells"].tolist() == [1, 2, 1, 1]
    found.write_h5ad(tmp_path / "found.h5ad")
    of_singles = measured_changes(named(names[:3], dose=[np.nan, 7, 1]), "p", dose_key="dose").obs[
        "dose"
    ]
    assert of_singles.tolist() == [1.0]
    for dose, match in (("1+2+3", "one number, or one for each of 2"), ("1+0", "above 0")):
        with pytest.raises(ValueError, match=match):
            measured_changes(named(names[:4], dose=[*doses[:3], dose]), "p", dose_key="dose")
