"""Draws of profiles from the posterior of the effects."""

from __future__ import annotations

import numpy as np
import pytest

from betavi.datasets import EffectDistribution
from betavi.model.effects.draws import (
    check_level,
    condition_draws,
    condition_in,
    drawn_prior,
    shares,
    unknown_effects,
)
from betavi.nn.effects import DEVIATION, INTERACTION, MAIN
from tests.model.effects.screens import fitted, screen


@pytest.fixture(scope="module")
def estimate():
    effects = EffectDistribution(share_affected=0.3, share_interacting=0.5)
    return fitted(screen(2000, n_genes=60, effects=effects)).module.stored_estimate()


def drawn(estimate, parts, seed=0, n_new_pairs=0, **kwargs):
    condition = condition_in(estimate, parts, None, 0)._replace(n_new_pairs=n_new_pairs)
    return condition_draws(estimate, condition, np.random.default_rng(seed), **kwargs)


def log_change(draws):
    return np.log(draws.condition) - np.log(draws.control)


def test_draws_are_shares_around_the_mean(estimate):
    found = drawn(estimate, [0], n_draws=2000)
    assert found.condition.shape == found.control.shape == (2000, 60)
    for values in (*found[:2], *(mean[None] for mean in found[2:])):
        # draws are centred gene by gene
        np.testing.assert_allclose(values.sum(axis=1), 1, rtol=0.01)
        assert (values > 0).all()
    for values, mean in ((found.condition, found.mean), (found.control, found.control_mean)):
        np.testing.assert_allclose(np.median(values, axis=0), mean)
        middle = np.log(values).mean(axis=0)
        assert np.abs(middle - np.log(mean)).max() < 5 * np.log(values).std(axis=0).max() / np.sqrt(
            2000
        )


def test_the_spread_is_that_of_the_posterior(estimate):
    found = np.log(drawn(estimate, [0], n_draws=4000).condition)
    contrast = np.zeros((1, len(estimate.kinds)))
    contrast[0, :1] = estimate.bases[0]
    contrast[0, 1:] = estimate.design.row([0], None, 0)
    expected = np.sqrt(estimate.posterior.covariance(contrast)[:, 0, 0])
    # shares sum to 1, which changes the spread of genes with a large share
    ratio = found.std(axis=0) / expected
    assert 0.9 < np.median(ratio) < 1.1


def test_both_profiles_share_their_base_level(estimate):
    found = drawn(estimate, [], n_draws=50)
    np.testing.assert_allclose(found.condition, found.control, rtol=1e-4)


def test_unknown_interactions_widen_the_draws(estimate):
    one, two = (log_change(drawn(estimate, [0, 1], n_new_pairs=n)).var() for n in (0, 1))
    three = log_change(drawn(estimate, [0, 1], n_new_pairs=3)).var()
    assert one < two < three


def test_priors_are_drawn_only_for_kinds_that_were_measured(estimate):
    rng = np.random.default_rng(0)
    assert not drawn_prior(estimate, DEVIATION, [1.0, 1.0], (5, 60), rng).any()
    assert not drawn_prior(estimate, INTERACTION, [], (5, 60), rng).any()
    prior = estimate.posterior.prior
    expected = np.sqrt(prior.shared(INTERACTION) @ prior.scales**2)
    values = drawn_prior(estimate, INTERACTION, [0.5], (400, 60), rng)
    assert values.std() == pytest.approx(0.5 * expected, rel=0.1)


def test_noise_of_replicates_is_added_to_perturbed_conditions():
    adata = screen(2000, n_genes=60, n_replicates=4, replicate_sd=0.3, n_combinations=0)
    spreads = []
    for keys in ({}, {"replicate_key": "replicate"}):
        estimate = fitted(adata.copy(), keys=keys).module.stored_estimate()
        spreads.append(np.log(drawn(estimate, [0]).condition).std(axis=0).mean())
        np.testing.assert_allclose(*drawn(estimate, [])[:2], rtol=1e-4)
    assert spreads[1] > 1.5 * spreads[0]
    assert 0.2 < np.sqrt(estimate.posterior.noise).mean() < 0.4


def test_effects_without_training_cells_are_drawn_from_their_prior(estimate):
    rows = estimate.posterior.rows.copy()
    rows[:, estimate.n_base] = 0
    unknown = estimate._replace(posterior=estimate.posterior._replace(rows=rows))
    condition = condition_in(unknown, [0], None, 0)
    assert unknown_effects(unknown, condition) == {MAIN: [1.0], INTERACTION: [], DEVIATION: []}
    prior = estimate.posterior.prior
    expected = prior.shared(MAIN) @ prior.scales**2
    change = log_change(drawn(unknown, [0], n_draws=2000))
    # without the noise of the total, which all genes share
    change -= change.mean(axis=1, keepdims=True)
    assert change.var(axis=0).mean() == pytest.approx(expected, rel=0.2)


def test_wide_posteriors_of_some_genes_do_not_move_the_others(estimate):
    noise = np.zeros(60)
    noise[:5] = 9.0
    wide = estimate._replace(posterior=estimate.posterior._replace(noise=noise))
    found = drawn(wide, [0])
    lower, upper = np.quantile(found.condition, [0.4, 0.6], axis=0)
    assert ((lower <= found.mean) & (found.mean <= upper)).all()


def test_shares_of_large_log_rates_are_finite():
    np.testing.assert_allclose(
        shares(np.array([[1000.0, 1000.0], [-1000.0, 0.0]])), [[0.5, 0.5], [0, 1]]
    )


def test_levels_are_checked():
    check_level(0.9)
    for level in (0, 1, 2.0, float("nan"), None):
        with pytest.raises(ValueError, match="`level` must be above 0 and below 1"):
            check_level(level)
    with pytest.raises(TypeError, match="`level` must be a number"):
        check_level("0.9")
