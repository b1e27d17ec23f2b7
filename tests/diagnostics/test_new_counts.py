"""Intervals of a new measurement: whole numbers, and as much inside as they say."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse, stats

from betavi.diagnostics import INTERVAL, new_count_coverage, new_count_interval


@pytest.fixture
def rates():
    return np.random.default_rng(0).gamma(2.0, 1.5, size=(4000, 5)) * [0.01, 0.1, 1, 10, 100]


@pytest.mark.parametrize("spread", [0.0, 0.3, 2.0])
def test_coverage_is_ninety_percent_if_means_and_errors_are_right(rates, spread):
    rng = np.random.default_rng(1)
    shape = 1 / max(spread, 1e-9) ** 2
    truth = rates * (rng.gamma(shape, 1 / shape, size=rates.shape) if spread else 1.0)
    covered = new_count_coverage(rng.poisson(truth), rates, spread * rates).mean(axis=0)
    np.testing.assert_allclose(covered, INTERVAL, atol=4 * np.sqrt(0.09 / len(rates)))


def test_wrong_errors_are_seen(rates):
    counts = np.random.default_rng(1).poisson(rates)
    assert (new_count_coverage(counts, rates, 2 * rates)[:, 2:].mean(axis=0) > 0.93).all()
    assert (new_count_coverage(counts, 0.5 * rates, 0 * rates)[:, 3:].mean(axis=0) < 0.5).all()


def test_an_interval_has_at_least_its_share_and_not_one_count_too_many():
    mean, std = np.array([[0.2, 3.0, 50.0]]), np.array([[0.0, 1.0, 20.0]])
    lower, upper = new_count_interval(mean, std)
    # an independent formula: Poisson counts mixed over a grid of gamma rates
    for j in range(3):
        levels = (np.arange(4000) + 0.5) / 4000
        a = (mean[0, j] / max(std[0, j], 1e-6)) ** 2
        grid = stats.gamma(a, scale=mean[0, j] / a).ppf(levels) if std[0, j] else mean[:, j]
        below = stats.poisson.cdf(lower[0, j] - 1, grid).mean()
        above = stats.poisson.sf(upper[0, j], grid).mean()
        assert 1 - below - above >= INTERVAL - 1e-3
        assert max(below, above) <= 0.05 + 1e-3


@pytest.mark.parametrize(
    ("mean", "std"), [([[1.0]], [[1.0, 2.0]]), ([[-1.0]], [[1.0]]), ([[1.0]], [[np.nan]])]
)
def test_bad_input_names_what_is_needed(mean, std):
    with pytest.raises(ValueError, match="same shape, and values that are finite"):
        new_count_interval(mean, std)
    with pytest.raises(ValueError, match=r"model\.denoise"):
        new_count_coverage([[1.0]], mean, std)


def test_values_with_dropped_entries_are_refused():
    with pytest.raises(TypeError, match="without drop_below"):
        new_count_interval(sparse.csr_matrix([[1.0]]), sparse.csr_matrix([[1.0]]))
