"""Parts of the benchmarks of EffectVI, beside direct calculations."""

from __future__ import annotations

import anndata
import numpy as np
import pandas as pd

from benchmarks import nonadditive, perturbed_cells
from tests.model.effects.screens import fitted, screen


def test_departures_of_exact_products_are_zero():
    counts = {"control": [40, 40, 920], "A": [80, 40, 880], "B": [40, 80, 880]}
    names = np.repeat([*counts, "A+B"], 2)
    rows = np.repeat([*counts.values(), [80, 80, 840]], 2, axis=0)
    adata = anndata.AnnData(1000.0 * rows, obs=pd.DataFrame({"condition": names}))
    measured = nonadditive.Measured(adata)
    np.testing.assert_allclose(measured.departure("A+B").value[:2], 0, atol=1e-4)
    np.testing.assert_allclose(measured.sum_of_changes("A+B").value[:2], 1, atol=1e-4)
    assert perturbed_cells.pairs_of(adata.obs["condition"]) == ["A+B"]


def test_counts_of_cells_in_another_condition_have_its_mean():
    adata = screen(1500, n_genes=60)
    pair = next(iter(adata.uns["truth"]["interactions"]))
    model = fitted(adata, max_epochs=4)
    cells = np.flatnonzero(adata.obs["perturbation"] == "control")
    drawn = perturbed_cells.counterfactual_counts(model, pair, cells).sum(axis=0)
    expected = model.predict(pair, cells=cells).X.sum(axis=0)
    large = expected > 200
    np.testing.assert_allclose(drawn[large], expected[large], rtol=0.25)
    assert large.sum() > 20
    np.testing.assert_array_equal(drawn, np.round(drawn))
