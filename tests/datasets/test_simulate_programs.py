"""Simulated cells with known programs."""

from __future__ import annotations

import numpy as np
import pytest

from betavi.datasets import simulate_programs


@pytest.mark.parametrize("scale", ["log", "rate"])
def test_genes_of_a_program_are_higher_in_its_cells(scale):
    adata = simulate_programs(n_cells=1000, n_genes=300, n_programs=4, scale=scale)
    counts = adata.X.toarray()
    np.testing.assert_array_equal(counts, np.abs(np.round(counts)))
    log_shares = np.log1p(1e4 * counts / counts.sum(axis=1, keepdims=True))
    for program in range(4):
        loading = adata.varm["programs"][:, program]
        is_active = adata.obsm["activity"][:, program] > 0
        change = log_shares[is_active].mean(axis=0) - log_shares[~is_active].mean(axis=0)
        assert np.corrcoef(change, loading)[0, 1] > 0.7


def test_mean_counts_follow_the_formula():
    """Averaged over cells, counts equal depth times the softmax of the log rates."""
    adata = simulate_programs(n_cells=4000, n_genes=50, n_programs=2)
    log_rate = adata.obsm["activity"] @ adata.varm["programs"].T
    counts = adata.X.toarray()
    silent = ~(adata.obsm["activity"] > 0).any(axis=1)
    base = counts[silent].sum(axis=0) / counts[silent].sum()
    shares = base * np.exp(log_rate)
    shares /= shares.sum(axis=1, keepdims=True)
    expected = (counts.sum(axis=1, keepdims=True) * shares)[~silent].sum(axis=0)
    np.testing.assert_allclose(counts[~silent].sum(axis=0), expected, rtol=0.15)


def test_one_seed_one_result():
    first, again = (simulate_programs(n_cells=50, n_genes=20, seed=1) for _ in range(2))
    assert (first.X != again.X).nnz == 0


def test_what_is_refused():
    with pytest.raises(ValueError, match="n_programs"):
        simulate_programs(n_programs=0)
    with pytest.raises(ValueError, match="scale"):
        simulate_programs(scale="counts")
