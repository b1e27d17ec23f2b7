"""Noise between replicates, drawn with a known variance."""

from __future__ import annotations

import numpy as np
import pytest

from betavi.diagnostics.effects.noise import replicate_noise

N_FEATURES = 400


def draw(rng, variance, information, member):
    """Return residuals with the noise of replicates and of cells, around zero."""
    spread = np.sqrt(variance + 1 / information)
    return rng.normal(size=(len(member), N_FEATURES)) * spread


@pytest.mark.parametrize("variance", [0.0, 0.01, 0.25])
@pytest.mark.parametrize("n_replicates", [2, 5])
def test_the_variance_is_recovered_on_average(variance, n_replicates):
    rng, member = np.random.default_rng(0), np.repeat(np.arange(20), n_replicates)
    information = rng.gamma(2, 500, (len(member), N_FEATURES))
    found = replicate_noise(draw(rng, variance, information, member), information, member)
    assert found.shape == (N_FEATURES,)
    assert (found >= 0).all()
    assert found.mean() == pytest.approx(variance, rel=0.1, abs=2e-4)


def test_differences_between_conditions_are_not_noise():
    rng, member = np.random.default_rng(1), np.repeat(np.arange(20), 3)
    information = np.full((60, N_FEATURES), 200.0)
    residual = draw(rng, 0, information, member) + rng.normal(size=(20, N_FEATURES))[member]
    assert replicate_noise(residual, information, member).mean() < 1e-3


def test_features_differ_and_their_estimates_are_shrunk():
    rng, member = np.random.default_rng(2), np.repeat(np.arange(30), 4)
    variance = rng.choice([0.01, 0.3], N_FEATURES)
    information = np.full((120, N_FEATURES), 100.0)
    found = replicate_noise(draw(rng, variance, information, member), information, member)
    large = variance > 0.1
    assert found[large].min() > found[~large].max()
    few = replicate_noise(draw(rng, 0.1, information[:4], member[:4]), information[:4], member[:4])
    # three degrees of freedom have a relative standard deviation of 0.8
    assert few.std() / few.mean() < 0.6


def test_order_of_groups_does_not_matter():
    rng, member = np.random.default_rng(3), np.repeat(np.arange(5), 2)
    information = rng.gamma(2, 50, (10, N_FEATURES))
    residual = draw(rng, 0.1, information, member)
    order = rng.permutation(10)
    other = replicate_noise(residual[order], information[order], member[order])
    np.testing.assert_allclose(other, replicate_noise(residual, information, member))


@pytest.mark.parametrize(("member", "n_lost"), [(np.arange(6), 0), (np.arange(6) // 2, 3)])
def test_without_replicates_there_is_no_noise(member, n_lost):
    rng = np.random.default_rng(4)
    found = replicate_noise(rng.normal(size=(6, 9)), np.full((6, 9), 1e6), member, n_lost)
    assert (found == 0).all()


def test_degrees_of_freedom_of_base_levels_are_not_counted():
    rng, member = np.random.default_rng(5), np.repeat(np.arange(2), 5)
    information = np.full((10, N_FEATURES), 100.0)
    residual = draw(rng, 0.2, information, member)
    batch = np.arange(10) % 2
    for code in (0, 1):
        residual[batch == code] -= residual[batch == code].mean(axis=0)
    found = replicate_noise(residual, information, member, n_lost=1)
    assert found.mean() == pytest.approx(0.2, rel=0.15)


def test_groups_without_information_are_ignored():
    rng, member = np.random.default_rng(6), np.repeat(np.arange(10), 3)
    information = np.full((30, N_FEATURES), 100.0)
    residual = draw(rng, 0.1, information, member)
    # one condition more, whose counts are all zero
    more = np.vstack([information, np.zeros((2, N_FEATURES))])
    found = replicate_noise(
        np.vstack([residual, np.full((2, N_FEATURES), -1.0)]), more, np.append(member, [10, 10])
    )
    assert np.isfinite(found).all()
    assert found.mean() == pytest.approx(0.1, rel=0.15)
