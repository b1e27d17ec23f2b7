"""The prior of effects against numerical integration, and its weights against the truth."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from scipy import integrate, stats

from betavi.diagnostics.effects import ScaleMixture
from betavi.diagnostics.effects.scale_mixture import SCALES


def fitted(estimates, variances, kinds, n_steps=200):
    prior = ScaleMixture.start(kinds)
    for _ in range(n_steps):
        prior = prior.updated(prior.shrunk(estimates, variances)[2])
    return prior


def test_the_start_has_half_of_its_weight_at_zero():
    prior = ScaleMixture.start(np.array([0, 0, 1]))
    np.testing.assert_allclose(prior.scale_weights.sum(axis=1), 1)
    np.testing.assert_allclose(prior.scale_weights[:, 0], 0.5)


@pytest.mark.parametrize(("estimate", "variance"), [(0.1, 0.04), (-0.5, 0.01), (2.0, 0.3), (0, 1)])
def test_posterior_moments_are_those_of_an_integral(estimate, variance):
    prior = ScaleMixture.start(np.zeros(1, dtype=int))
    mean, spread, share = prior.shrunk(np.array([[estimate]]), np.array([[variance]]))

    def moment(power):
        def density(x):
            likelihood = stats.norm.pdf(estimate, x, np.sqrt(variance))
            components = stats.norm.pdf(x, 0, prior.scales) * prior.scale_weights[0]
            return x**power * likelihood * components.sum()

        points = [-0.01, -0.002, 0, 0.002, 0.01]
        return integrate.quad(density, -8, 8, points=points, limit=500)[0]

    evidence = moment(0)
    assert mean[0, 0] == pytest.approx(moment(1) / evidence, abs=1e-6)
    assert spread[0, 0] == pytest.approx(moment(2) / evidence - mean[0, 0] ** 2, rel=1e-4)
    components = stats.norm.pdf(estimate, 0, np.sqrt(variance + prior.scales**2))
    expected = components * prior.scale_weights[0]
    np.testing.assert_allclose(share[0], expected / expected.sum())


def test_shrinkage_is_odd_and_keeps_the_order_of_estimates():
    prior = ScaleMixture.start(np.zeros(1, dtype=int))
    estimates = np.linspace(-3, 3, 101)[None]
    mean = prior.shrunk(estimates, np.full_like(estimates, 0.04))[0]
    np.testing.assert_allclose(mean, -mean[:, ::-1], atol=1e-12)
    assert (np.diff(mean) > 0).all()
    assert (np.abs(mean) <= np.abs(estimates)).all()


def test_weights_recover_the_share_of_zero_effects():
    rng = np.random.default_rng(0)
    truth = rng.normal(scale=0.8, size=(3, 4000)) * (rng.random((3, 4000)) < 0.2)
    estimates = truth + rng.normal(scale=0.05, size=truth.shape)
    prior = fitted(estimates, np.full_like(truth, 0.05**2), np.zeros(3, dtype=int))
    narrow = prior.scales <= 0.05
    np.testing.assert_allclose(prior.scale_weights[:, narrow].sum(axis=1), 0.8, atol=0.04)
    mean = prior.shrunk(estimates, np.full_like(truth, 0.05**2))[0]
    assert np.square(mean - truth).mean() < 0.5 * np.square(estimates - truth).mean()


def test_effects_with_few_features_have_the_weights_of_their_kind():
    rng = np.random.default_rng(1)
    estimates = rng.normal(scale=[[0.01]] * 30 + [[0.8]] * 30, size=(60, 5))
    kinds = np.repeat([0, 2], 30)
    prior = fitted(estimates, np.full_like(estimates, 1e-4), kinds)
    assert prior.shared(0)[0] > 0.8
    assert prior.shared(2)[0] < 0.05
    # rows of a kind agree, because 50 shared features count more than 5 of their own
    assert np.ptp(prior.scale_weights[kinds == 2], axis=0).max() < 0.2
    np.testing.assert_allclose(prior.shared(0).sum(), 1)


def test_weights_of_precise_estimates_do_not_underflow():
    estimates = np.full((2, 10), 1.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        prior = fitted(estimates, np.full_like(estimates, 1e-12), np.zeros(2, dtype=int))
        mean, variance, _ = prior.shrunk(estimates, np.full_like(estimates, 1e-12))
    np.testing.assert_allclose(mean, 1.0)
    assert (variance > 0).all()
    assert len(prior.scales) == len(SCALES)
