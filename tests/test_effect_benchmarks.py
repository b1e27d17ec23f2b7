"""Parts of the benchmarks of EffectVI, beside direct calculations."""

from __future__ import annotations

import numpy as np

from benchmarks import perturbed_cells
from tests.model.effects.screens import fitted, screen


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
