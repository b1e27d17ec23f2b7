from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse, stats

from betavi.datasets import simulate, simulate_counts


def test_shapes_types_and_names():
    adata = simulate_counts(n_cells=500, n_genes=30, n_factors=3, n_types=4, n_batches=3)
    assert adata.shape == (500, 30)
    assert sparse.issparse(adata.X)
    assert adata.X.dtype == np.int32
    assert adata.obsm["z"].shape == (500, 3)
    assert adata.varm["loadings"].shape == (30, 3)
    assert adata.obs["batch"].nunique() == 3
    assert adata.obs["cell_type"].nunique() == 4


def test_the_same_seed_gives_the_same_cells():
    first, again, other = (simulate_counts(200, 20, seed=seed) for seed in (3, 3, 4))
    assert (first.X != again.X).nnz == 0
    assert (first.X != other.X).nnz > 0


def test_the_rare_type_is_as_rare_as_asked():
    adata = simulate_counts(n_cells=20_000, n_genes=5, n_types=3, rare_share=0.05)
    share = (adata.obs["cell_type"] == "type_2").mean()
    assert share == pytest.approx(0.05, abs=0.01)


def test_counts_have_the_mean_and_the_zeros_of_the_truth():
    adata = simulate_counts(n_cells=5000, n_genes=50, zero_inflation=0.2, seed=1)
    mean = simulate._means(adata, slice(None))
    theta = adata.var["theta"].to_numpy()
    x = adata.X.toarray()
    np.testing.assert_allclose(x.sum(axis=0), 0.8 * mean.sum(axis=0), rtol=0.1)
    zeros = 0.2 + 0.8 * stats.nbinom.pmf(0, theta, theta / (theta + mean))
    np.testing.assert_allclose((x == 0).mean(axis=0), zeros.mean(axis=0), atol=0.03)
    totals = adata.obs["library_size"]
    assert totals.median() == pytest.approx(1000, rel=0.05)


def test_the_likelihood_is_that_of_the_truth_and_of_no_other_position():
    adata = simulate_counts(n_cells=300, n_genes=50, seed=2)
    mean = simulate._means(adata, slice(None))
    theta = adata.var["theta"].to_numpy()
    x = adata.X.toarray()

    def log_likelihood(mean):
        nb = stats.nbinom.logpmf(x, theta, theta / (theta + mean))
        inflated = np.where(x == 0, np.log(0.05 + 0.95 * np.exp(nb)), np.log(0.95) + nb)
        return inflated.sum(axis=1)

    np.testing.assert_allclose(adata.obs["log_likelihood"], log_likelihood(mean), rtol=1e-6)
    adata.obsm["z"] = adata.obsm["z"][::-1]
    elsewhere = log_likelihood(simulate._means(adata, slice(None)))
    assert adata.obs["log_likelihood"].mean() > elsewhere.mean() + 5


def test_blocks_leave_no_seam(monkeypatch):
    monkeypatch.setattr("betavi._blocks.SIMULATED_CELLS", 64)
    adata = simulate_counts(n_cells=200, n_genes=10)
    assert adata.X.shape == (200, 10)
    assert adata.obs["log_likelihood"].notna().all()


@pytest.mark.parametrize(
    "kwargs",
    [{"n_cells": 0}, {"rare_share": 1.2}, {"zero_inflation": 1.0}, {"library_size": 0}],
)
def test_numbers_out_of_range_are_refused(kwargs):
    ((name, value),) = kwargs.items()
    with pytest.raises(ValueError, match=f"`{name}` must be .* [01], not {value}"):
        simulate_counts(**kwargs)
