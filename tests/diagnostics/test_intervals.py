"""Intervals calibrated on held-out cells hold on new cells, per feature and per batch."""

from __future__ import annotations

import numpy as np
import pytest

from betavi.diagnostics import calibrate_intervals, cross_calibrated, is_inside

WIDTHS = np.array([0.3, 1.0, 3.0])


def cells(n, seed, batch_scale=None):
    """Return values with standard deviation 1, and intervals of a wrong width for each feature."""
    rng = np.random.default_rng(seed)
    truth = rng.normal(size=(n, 3))
    batches = rng.integers(0, 2, n)
    if batch_scale is not None:
        truth *= np.where(batches == 1, batch_scale, 1.0)[:, None]
    half = np.broadcast_to(WIDTHS, truth.shape)
    return truth, -half, half.copy(), batches


@pytest.mark.parametrize("n", [100, 400, 2000])
def test_wrong_intervals_are_made_wider_or_narrower(n):
    shares = []
    for seed in range(40):
        *known, _ = cells(n, seed)
        truth, lower, upper, _ = cells(2000, 1000 + seed)
        shares.append(is_inside(truth, *calibrate_intervals(*known).extended(lower, upper)).mean(0))
    share = np.mean(shares, axis=0)
    assert share == pytest.approx([0.9] * 3, abs=0.02)


def test_right_intervals_keep_their_coverage_with_few_cells():
    shares, spread = [], []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        truth = rng.normal(size=(2030, 10))
        half = np.full_like(truth, 1.645)
        known = truth[:30], -half[:30], half[:30]
        found = calibrate_intervals(*known).extended(-half[30:], half[30:])
        shares.append(is_inside(truth[30:], *found).mean())
        spread.append(is_inside(truth[30:], *found).mean(axis=0).std())
    assert np.mean(shares) == pytest.approx(0.9, abs=0.015)
    # without borrowing, coverage of features would vary by 0.05 between each other
    assert np.mean(spread) < 0.035


@pytest.mark.parametrize(("n", "least"), [(60, 0.8), (200, 0.85), (500, 0.87)])
def test_a_wrong_feature_among_right_ones_is_mended(n, least):
    shares = []
    for seed in range(20):
        truth = np.random.default_rng(seed).normal(size=(n + 1000, 100))
        half = np.full_like(truth, 1.645)
        half[:, 0] /= 10
        found = calibrate_intervals(truth[:n], -half[:n], half[:n])
        shares.append(is_inside(truth[n:], *found.extended(-half[n:], half[n:])).mean(axis=0))
    share = np.mean(shares, axis=0)
    assert share[0] > least
    assert share[1:].mean() == pytest.approx(0.9, abs=0.02)


def test_a_large_batch_has_its_own_calibration():
    truth, lower, upper, batches = cells(4000, 0, batch_scale=3.0)
    known, new = slice(0, 2000), slice(2000, 4000)
    own = calibrate_intervals(truth[known], lower[known], upper[known], batches[known])
    shared = calibrate_intervals(truth[known], lower[known], upper[known])
    for code in (0, 1):
        mine = batches[new] == code
        parts = [part[new][mine] for part in (truth, lower, upper)]
        inside = is_inside(parts[0], *own.extended(*parts[1:], batches[new][mine])).mean(axis=0)
        assert inside == pytest.approx([0.9] * 3, abs=0.03)
        one_for_all = is_inside(parts[0], *shared.extended(*parts[1:])).mean()
        assert abs(one_for_all - 0.9) > 0.04


def test_a_batch_without_held_out_cells_gets_the_calibration_of_all():
    truth, lower, upper, batches = cells(500, 0)
    found = calibrate_intervals(truth, lower, upper, batches)
    unknown = found.extended(lower, upper, np.full(500, 7))
    everyone = found.extended(lower, upper)
    np.testing.assert_array_equal(unknown, everyone)


def test_ends_never_cross_and_order_of_cells_does_not_matter():
    truth, lower, upper, _ = cells(300, 0)
    found = calibrate_intervals(0.01 * truth, lower, upper)
    assert (found.factors[-1] < 0).all()
    ends = found.extended(lower, upper)
    assert (ends[0] <= ends[1]).all()
    order = np.random.default_rng(1).permutation(300)
    other = calibrate_intervals(0.01 * truth[order], lower[order], upper[order])
    np.testing.assert_allclose(other.factors[-1], found.factors[-1])


def test_intervals_without_width_become_wider():
    truth = np.random.default_rng(0).poisson(1.0, size=(200, 2)).astype(float)
    found = calibrate_intervals(truth, 0 * truth, 0 * truth + 1e-9)
    lower, upper = found.extended(0 * truth, 0 * truth + 1e-9)
    assert is_inside(truth, lower, upper).mean() >= 0.88


def test_cross_calibration_does_not_see_the_cell_itself():
    truth, lower, upper, _ = cells(500, 3)
    ends = cross_calibrated(truth, lower, upper)
    assert is_inside(truth, *ends).mean() == pytest.approx(0.9, abs=0.03)
    # a value far outside moves the intervals of other cells only
    changed = truth.copy()
    changed[0] = 1e6
    moved = cross_calibrated(changed, lower, upper)
    np.testing.assert_array_equal(moved[0][0], ends[0][0])


def test_too_few_cells():
    truth, lower, upper, _ = cells(23, 0)
    with pytest.raises(ValueError, match="at least 24 cells, not 23"):
        calibrate_intervals(truth, lower, upper)
    np.testing.assert_array_equal(cross_calibrated(truth, lower, upper)[0], lower)
