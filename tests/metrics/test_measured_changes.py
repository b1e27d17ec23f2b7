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
