"""p-values of cells that are known to be possible, and of others."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from betavi.diagnostics import CellScores, DensityCalibration, SupportCalibration


def cells(n_cells, rng, worse=0.0, depths=(1.0, 0.5, 0.25, 0.125)):
    """Cells whose scores depend on depth: a shallow one is where it is dense, and explained well."""
    log_depth = np.log(rng.lognormal(8, 0.5, n_cells) * rng.choice(depths, n_cells))
    log_density = -(log_depth**2) / 4 + rng.gumbel(size=n_cells) * 0.3 * log_depth
    reconstruction_excess = 0.4 * log_depth + rng.normal(size=n_cells) * log_depth / 4 + worse
    return CellScores(log_density, reconstruction_excess, log_depth)


@pytest.fixture
def calibration():
    rng = np.random.default_rng(0)
    copies = [cells(1000, rng, depths=(share,)) for share in (1.0, 0.5, 0.25, 0.125)]
    known = CellScores(*map(np.stack, zip(*copies, strict=True)))
    return SupportCalibration(known)


@pytest.mark.parametrize("depths", [(1.0,), (0.5,), (0.125,)])
def test_p_values_of_possible_cells_are_uniform_at_every_depth(calibration, depths):
    some = cells(4000, np.random.default_rng(1), depths=depths)
    p_value = calibration.p_value(some)
    assert 0.03 < (p_value < 0.05).mean() < 0.07
    assert 0.4 < (p_value < 0.5).mean() < 0.6
    assert p_value.min() > 0
    assert p_value.max() <= 1


@pytest.mark.parametrize("share", [1.0, 0.5, 0.25])
def test_where_shallow_cells_are_damaged_one_in_twenty_is_called_of_whole_and_thinned(share):
    rng = np.random.default_rng(8)

    def some(n_cells, share):
        natural = rng.normal(0, 0.5, n_cells)
        log_density, reconstruction_excess = rng.normal(size=(2, n_cells))
        damage = 2 * np.maximum(-natural - 0.3, 0)
        return CellScores(log_density, reconstruction_excess + damage, 7 + natural + np.log(share))

    copies = [some(2000, share) for share in (1.0, 0.5, 0.25, 0.125)]
    calibration = SupportCalibration(CellScores(*map(np.stack, zip(*copies, strict=True))))
    assert 0.035 < (calibration.p_value(some(4000, share)) < 0.05).mean() < 0.065


def test_between_two_copies_both_ranks_are_interpolated(calibration):
    depth = np.median(calibration.held_out.log_depth, axis=1)
    some = cells(200, np.random.default_rng(9))
    known = calibration._known_outlier_scores
    at = (depth[0], (depth[0] + depth[1]) / 2, depth[1])
    whole, between, half = (some._replace(log_depth=np.full(200, x)) for x in at)
    for same, copies in ((whole, [0]), (between, [0, 1]), (half, [1])):
        value = calibration.outlier_score(same)
        ranks = [(1 + (known[copy] >= value[:, None]).sum(axis=1)) / 1001 for copy in copies]
        np.testing.assert_allclose(calibration.p_value(same), np.mean(ranks, axis=0))


def test_worse_cells_are_outlying_and_better_ones_are_not(calibration):
    rng = np.random.default_rng(2)
    usual, worse, far = (cells(500, rng, worse) for worse in (0.0, 3.0, 30.0))
    medians = [np.median(calibration.outlier_score(some)) for some in (usual, worse, far)]
    assert medians == sorted(medians)
    assert medians[2] > 3 * medians[1]
    assert (calibration.p_value(far) < 0.01).all()
    # denser and explained better than known cells is nothing to worry about
    easy = CellScores(usual.log_density + 50, usual.reconstruction_excess - 50, usual.log_depth)
    assert (calibration.p_value(easy) > 0.99).all()


def test_cells_that_are_not_outlying_have_different_scores(calibration):
    p_value = calibration.p_value(cells(4000, np.random.default_rng(6), depths=(1.0,)))
    assert stats.kstest(p_value, "uniform").statistic < 0.06
    # no heap of them at one value, as of those of which neither score is unusual
    assert np.bincount(np.unique(p_value, return_inverse=True)[1]).max() < 0.02 * len(p_value)


def test_either_score_is_enough(calibration):
    rng = np.random.default_rng(3)
    some = cells(500, rng)
    thin = CellScores(some.log_density - 60, some.reconstruction_excess, some.log_depth)
    badly = CellScores(some.log_density, some.reconstruction_excess + 30, some.log_depth)
    for outlying in (thin, badly):
        assert (calibration.p_value(outlying) < 0.02).mean() > 0.95


def test_depths_beyond_those_known_are_judged_by_the_last(calibration):
    some = cells(50, np.random.default_rng(4))
    for log_depth in (-5.0, 30.0):
        beyond = some._replace(log_depth=np.full(50, log_depth))
        assert np.isfinite(calibration.p_value(beyond)).all()


def test_with_few_known_cells_p_values_are_not_too_small():
    rng, called = np.random.default_rng(7), []
    for _ in range(60):
        copies = [cells(100, rng, depths=(share,)) for share in (1.0, 0.5)]
        calibration = SupportCalibration(CellScores(*map(np.stack, zip(*copies, strict=True))))
        some = (cells(200, rng, depths=(share,)) for share in (1.0, 0.5))
        called.append([(calibration.p_value(part) < 0.05).mean() for part in some])
    # of a conformal p-value it is one in twenty at most
    mean, error = np.mean(called, axis=0), np.std(called, axis=0) / np.sqrt(len(called))
    assert (mean - 2 * error < 0.05).all()
    assert (mean > 0.03).all()


def test_positions_are_judged_by_the_density_of_cells():
    rng = np.random.default_rng(5)
    known = rng.gumbel(size=500)
    calibration = DensityCalibration(known)
    p_value = calibration.p_value(rng.choice(known, 2000))
    assert stats.kstest(p_value, "uniform").statistic < 0.05
    assert calibration.p_value(np.array([known.min() - 1])) == 1 / 501
