"""Shuffled genes: what stays, what goes, and how often a test calls what is not there."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse, stats

from betavi.diagnostics import correlated_share, marker_share, shuffle_genes, some_of_each


@pytest.fixture
def counts():
    """Types that differ in depth and in all genes; returns the types too."""
    rng = np.random.default_rng(0)
    types = rng.integers(3, size=900)
    depth = np.array([300, 600, 1200])[types, None] * rng.lognormal(0, 0.2, size=(900, 1))
    profiles = rng.gamma(1.0, 1.0, size=(3, 80))
    rates = depth * (profiles / profiles.sum(axis=1, keepdims=True))[types]
    return sparse.csr_matrix(rng.poisson(rates).astype(np.float32)), types


def shares(values):
    return np.log1p(1e4 * values / values.sum(axis=1, keepdims=True))


def test_counts_stay_in_their_stratum_and_other_genes_as_they_are(counts):
    matrix, _ = counts
    batch = np.arange(900) % 2
    shuffled = shuffle_genes(matrix, batch, share=0.25, seed=1)
    assert len(shuffled.genes) == 20
    before, after = matrix.toarray(), shuffled.counts.toarray()
    others = np.setdiff1d(np.arange(80), shuffled.genes)
    np.testing.assert_array_equal(after[:, others], before[:, others])
    for stratum in np.unique(shuffled.strata):
        mine = shuffled.strata == stratum
        assert len(np.unique(batch[mine])) == 1
        np.testing.assert_array_equal(np.sort(after[mine], axis=0), np.sort(before[mine], axis=0))
    moved = (after[:, shuffled.genes] != before[:, shuffled.genes]).mean(axis=0)
    assert (moved > 0.1).mean() > 0.9
    totals = before.sum(axis=1)
    spread = [np.ptp(np.log(totals[shuffled.strata == s])) for s in np.unique(shuffled.strata)]
    assert np.median(spread) < 0.3 * np.ptp(np.log(totals))


def test_nothing_is_found_in_shuffled_counts_though_depth_differs_between_types(counts):
    matrix, types = counts
    shuffled = shuffle_genes(matrix, np.zeros(900), share=0.5)
    false, true = some_of_each(shuffled.genes, 80)
    values = shuffled.within(shares(shuffled.counts.toarray()))
    assert correlated_share(values[:, false]) < 0.01
    assert marker_share(values[:, false], types) < 0.1
    assert marker_share(values[:, true], types) > 0.8
    # and what smoothing brings in is
    types_mean = np.stack(
        [shares(shuffled.counts.toarray())[types == t].mean(axis=0) for t in range(3)]
    )
    smooth = shuffled.within(types_mean[types])
    few = false[:10]
    assert correlated_share(smooth[:, few]) > 0.5
    assert marker_share(smooth[:, few], types) > 0.9


def test_the_tests_are_those_of_scipy():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(60, 6)) + rng.normal(size=(60, 1)) * [0, 0, 0, 0.7, 0.7, 0.7]
    pairs = [(i, j) for i in range(6) for j in range(i)]
    p = np.array([stats.pearsonr(values[:, i], values[:, j]).pvalue for i, j in pairs])
    assert correlated_share(values) == pytest.approx((p < 0.05 / 15).mean())
    groups = np.repeat([0, 1, 2], 20)
    values[groups == 1, 4:] += 2
    p = [stats.f_oneway(*(values[groups == g, i] for g in range(3))).pvalue for i in range(6)]
    found = stats.false_discovery_control(p) < 0.05
    assert marker_share(values, groups) == pytest.approx(found.mean())
    assert 0 < found.mean() < 1


def test_constants_are_no_signals():
    values = np.ones((40, 5))
    assert correlated_share(values) == 0
    assert marker_share(values, np.arange(40) % 2) == 0
    assert np.isnan(marker_share(values, np.zeros(40)))
    assert np.isnan(correlated_share(values[:, :1]))
    shuffled = shuffle_genes(sparse.csr_matrix(values), np.zeros(40))
    # of numbers that only rounding tells apart nothing is left
    assert not shuffled.within(values * np.linspace(1, 1 + 1e-9, 40)[:, None]).any()
