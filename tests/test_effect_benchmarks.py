"""Parts of the benchmarks of EffectVI, beside direct calculations, and real bulk samples."""

from __future__ import annotations

import anndata
import numpy as np
import pandas as pd
import pytest

from benchmarks import bulk, nonadditive, perturbed_cells, screens
from tests.model.effects.screens import fitted, screen


def bulk_samples(n_genes=300, noise=0.1, seed=0):
    """Return a simulated 2 x 2 in four experiments, and its interaction in log2 units."""
    rng = np.random.default_rng(seed)
    obs = pd.DataFrame(
        {
            "condition": np.tile(["control", "BAY", "hypoxia", "hypoxia+BAY"], 4),
            "experiment": np.repeat(["1", "2", "3", "4"], 4),
        },
        index=[f"s{i}" for i in range(16)],
    )
    interaction = rng.normal(size=n_genes) * (rng.random(n_genes) < 0.2)
    logs = rng.normal(size=n_genes) + np.repeat(rng.normal(0, 0.5, (4, n_genes)), 4, axis=0)
    logs = logs + noise * rng.normal(size=(16, n_genes))
    logs[(obs["condition"] == "hypoxia+BAY").to_numpy()] += interaction
    return anndata.AnnData(np.round(1000 * 2**logs).astype(np.int32), obs=obs), interaction


def test_the_linear_model_estimates_the_mean_difference_of_differences():
    adata, interaction = bulk_samples()
    found = bulk.by_linear_model(adata)
    logs = bulk.log_cpm(adata).reshape(4, 4, -1)
    expected = (logs[:, 3] - logs[:, 2] - logs[:, 1] + logs[:, 0]).mean(axis=0)
    np.testing.assert_allclose(found["estimate"], expected, atol=1e-9)
    assert (found["p_value"][np.abs(interaction) > 1] < 0.01).all()


def test_variances_that_are_equal_are_pooled():
    rng = np.random.default_rng(0)
    variance, freedom = bulk.moderated(2 * rng.chisquare(9, size=5000) / 9, 9)
    np.testing.assert_allclose(variance, 2, rtol=0.15)
    assert freedom > 100


def test_samples_without_an_interaction_have_uniform_p_values():
    adata, _ = bulk_samples(n_genes=2000)
    p_value = bulk.by_linear_model(bulk.without_interaction(adata, 0))["p_value"]
    assert 0.03 < (p_value < 0.05).mean() < 0.07


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


@pytest.mark.slow
def test_bulk_samples_have_the_interaction_that_a_linear_model_finds(real):
    real("bulk_hypoxia_molidustat.h5ad")
    adata, _ = screens.hypoxia()
    ours, theirs = bulk.by_effects(adata), bulk.by_linear_model(adata)
    called = theirs["fdr"] < 0.1
    assert called.sum() > 100
    assert np.corrcoef(ours["estimate"][called], theirs["estimate"][called])[0, 1] > 0.85
    both = called & (ours["fdr"] < 0.1)
    # both call about 200 genes
    assert both.sum() > 0.7 * max(called.sum(), (ours["fdr"] < 0.1).sum())
    assert (np.sign(ours["estimate"]) == np.sign(theirs["estimate"]))[both].mean() > 0.98
