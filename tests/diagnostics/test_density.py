"""The density of the aggregate posterior, beside scipy and distributions that are known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from scipy.optimize import approx_fprime

from betavi.diagnostics import LatentDensity, fit_density


@pytest.fixture
def two():
    """Two components, one of them oblique."""
    return LatentDensity(
        np.array([0.3, 0.7]),
        np.array([[0.0, 0.0, 1.0], [4.0, -2.0, 0.0]]),
        np.array([np.eye(3), [[2.0, 0.8, 0.0], [0.8, 1.0, 0.0], [0.0, 0.0, 0.1]]]),
        0.0,
    )


def parts(density):
    return [
        (w, stats.multivariate_normal(m, c))
        for w, m, c in zip(density.weights, density.means, density.covariances, strict=True)
    ]


def test_log_density_is_scipys(two):
    points = np.random.default_rng(0).normal(size=(20, 3)) * 3
    expected = np.log(sum(w * normal.pdf(points) for w, normal in parts(two)))
    np.testing.assert_allclose(two.log_prob(points), expected)


def test_slope_is_a_finite_difference(two):
    for point in np.random.default_rng(0).normal(size=(5, 3)) * 2:
        numeric = approx_fprime(point, lambda z: two.log_prob(z[None])[0], 1e-7)
        np.testing.assert_allclose(two.slope(point[None])[0], numeric, rtol=1e-4, atol=1e-5)


def test_draws_have_its_moments_and_a_projection_is_of_draws(two):
    draws = two.sample(100_000, np.random.default_rng(0))
    np.testing.assert_allclose(draws.mean(axis=0), two.weights @ two.means, atol=0.03)
    centre, axes = np.array([1.0, 0.0, 0.0]), np.linalg.qr(np.arange(6.0).reshape(3, 2) ** 2)[0]
    flat, projected = (draws - centre) @ axes, two.projected(centre, axes)
    again = projected.sample(100_000, np.random.default_rng(1))
    for one, other in zip(flat.T, again.T, strict=True):
        assert stats.ks_2samp(one, other).pvalue > 1e-3
    # and its log density is what the entropy of its draws says
    assert projected.log_prob(flat).mean() == pytest.approx(
        projected.log_prob(again).mean(), abs=0.02
    )


def test_finds_as_many_components_as_there_are():
    rng = np.random.default_rng(0)
    one = rng.normal(size=(2000, 4))
    assert len(fit_density(one).weights) == 1
    assert fit_density(one).held_out == pytest.approx(-4 * stats.norm.entropy(), abs=0.15)
    apart = one + 8 * rng.integers(2, size=(2000, 1))
    found = fit_density(apart)
    assert len(found.weights) == 2
    assert np.sort(found.means[:, 0]) == pytest.approx([0, 8], abs=0.2)


def test_scale_and_shift_of_dimensions_do_not_matter():
    rng = np.random.default_rng(0)
    draws = rng.normal(size=(600, 3)) + 5 * rng.integers(2, size=(600, 1))
    scale, shift = np.array([1e-3, 1.0, 1e3]), np.array([5.0, 0.0, -7e3])
    one, other = fit_density(draws), fit_density(draws * scale + shift)
    expected = one.log_prob(draws) - np.log(scale).sum()
    np.testing.assert_allclose(other.log_prob(draws * scale + shift), expected, atol=0.05)
    assert other.held_out == pytest.approx(one.held_out - np.log(scale).sum(), abs=0.05)


def test_a_dimension_without_width_has_a_density():
    draws = np.random.default_rng(0).normal(size=(200, 2))
    draws[:, 1] = 3.0
    assert np.isfinite(fit_density(draws).log_prob(draws)).all()


def test_cells_are_left_out_as_a_whole():
    """Several draws of the same few cells, which a density of many components would memorise."""
    rng = np.random.default_rng(0)
    cells = np.repeat(np.arange(60), 100)
    draws = rng.normal(size=(60, 2))[cells] + 0.01 * rng.normal(size=(6000, 2))
    assert len(fit_density(draws, cells).weights) < 10 < len(fit_density(draws).weights)


@pytest.mark.parametrize(
    ("draws", "message"),
    [
        (np.zeros((2, 2)), r"only 2 cell.*at least 3"),
        (np.array([[0.0, 1.0], [0.0, np.nan], [1.0, 1.0]]), r"finite, but row 1 is \[0.0, nan\]"),
    ],
)
def test_too_few_or_not_finite(draws, message):
    with pytest.raises(ValueError, match=message):
        fit_density(draws)
