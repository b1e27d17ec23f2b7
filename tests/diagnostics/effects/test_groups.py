"""Sums over groups against pandas, and the inflation of counts with a known variance."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from betavi.diagnostics.effects import inflation, sum_groups
from betavi.diagnostics.effects.groups import inflation_of_groups

N_CELLS, N_GENES, N_GROUPS = 300, 20, 6


@pytest.fixture
def cells():
    rng = np.random.default_rng(0)
    counts = rng.poisson(1.0, (N_CELLS, N_GENES))
    # the last group has no cells
    return counts, rng.integers(0, N_GROUPS - 1, N_CELLS)


def blocks(counts, codes, size, form=sparse.csr_array):
    for start in range(0, len(codes), size):
        some = slice(start, start + size)
        yield form(counts[some]), codes[some]


@pytest.mark.parametrize("size", [1, 7, 300, 1000])
@pytest.mark.parametrize("dtype", [np.int32, np.uint8, np.float32])
def test_sums_are_those_of_pandas(cells, size, dtype):
    counts, codes = cells
    found = sum_groups(blocks(counts.astype(dtype), codes, size), N_GROUPS, N_GENES)
    totals = counts.sum(axis=1)
    for name, values in (
        ("counts", counts),
        ("squares", counts**2),
        ("by_size", counts * totals[:, None]),
    ):
        expected = pd.DataFrame(values).groupby(codes).sum().reindex(range(N_GROUPS), fill_value=0)
        np.testing.assert_array_equal(getattr(found, name), expected)
    of_groups = pd.Series(totals**2).groupby(codes)
    expected = of_groups.sum().reindex(range(N_GROUPS), fill_value=0)
    np.testing.assert_array_equal(found.size_squares, expected)
    np.testing.assert_array_equal(found.n_cells, np.bincount(codes, minlength=N_GROUPS))


def test_squares_of_small_integers_do_not_overflow():
    counts = sparse.csr_array(np.full((3, 2), 250, dtype=np.uint8))
    found = sum_groups([(counts, np.zeros(3, dtype=int))], 1, 2)
    assert found.squares.tolist() == [[187500.0, 187500.0]]


def summed(counts, codes):
    return sum_groups(blocks(counts, codes, 10_000), codes.max() + 1, counts.shape[1])


def draw(rng, n_cells, n_genes, size_sd=0.3, mean=1.0):
    sizes = rng.lognormal(0, size_sd, (n_cells, 1))
    return rng.poisson(mean * sizes * rng.gamma(2, 0.5, n_genes))


@pytest.mark.parametrize("factor", [1, 3, 8])
def test_inflation_is_the_factor_of_poisson_counts(factor):
    rng = np.random.default_rng(1)
    counts = factor * draw(rng, 5000, 100)
    found = inflation(summed(counts, np.arange(5000) % 10))
    assert found.mean() == pytest.approx(factor, rel=0.03)
    assert found.std() < 0.1 * factor


@pytest.mark.parametrize("n_cells", [2, 3, 10])
@pytest.mark.parametrize("size_sd", [0.0, 1.2])
def test_inflation_has_no_bias_from_small_groups(n_cells, size_sd):
    rng = np.random.default_rng(2)
    counts = 4 * draw(rng, 6000, 100, size_sd)
    found = inflation(summed(counts, np.arange(6000) // n_cells))
    assert found.mean() == pytest.approx(4, rel=0.05)


def test_inflation_does_not_include_differences_between_groups():
    rng = np.random.default_rng(3)
    codes = np.arange(4000) % 4
    counts = rng.poisson(rng.gamma(1, 1, (4, 50))[codes])
    assert inflation(summed(counts, codes)).max() < 1.2
    assert inflation(summed(counts, 0 * codes)).mean() > 1.3


def test_variable_genes_have_an_inflation_of_their_own():
    rng = np.random.default_rng(4)
    counts = draw(rng, 4000, 40, size_sd=0)
    counts[:, 0] = rng.negative_binomial(0.5, 0.5 / 2.5, 4000)
    found = inflation(summed(counts, np.arange(4000) % 4))
    assert found[0] == pytest.approx(5, rel=0.25)
    assert found[1:].max() < 1.2


def test_inflation_is_at_least_one_and_finite():
    rng = np.random.default_rng(5)
    counts = draw(rng, 30, 10)
    counts[:, 3] = 0
    alone = inflation(summed(counts, np.arange(30)))
    np.testing.assert_allclose(alone, 1)
    # cells of equal counts
    assert (inflation(summed(np.ones((30, 4)), np.arange(30) % 3)) == 1).all()
    assert np.isfinite(inflation(summed(0 * counts, np.arange(30) % 3))).all()


def test_counts_of_groups_vary_more_where_their_mean_is_larger():
    rng, theta = np.random.default_rng(12), 2.0
    means = np.array([0.5, 2.0, 8.0])[:, None] * np.ones(40)
    # features that are the same in all groups, so that totals are known well
    means = np.hstack([means, np.full((3, 400), 10.0)])
    codes = np.repeat([0, 1, 2], 2000)
    cells = rng.poisson(means[codes] * rng.gamma(theta, 1 / theta, (6000, 440)))
    sums = sum_groups([(sparse.csr_array(cells), codes)], 3, 440)
    found = inflation_of_groups(inflation(sums), sums.counts)
    np.testing.assert_allclose(found[:, :40].mean(axis=1), 1 + means[:, 0] / theta, rtol=0.1)
    np.testing.assert_allclose(found[:, 40:].mean(axis=1), 1 + 10 / theta, rtol=0.1)
