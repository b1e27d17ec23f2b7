"""Noise between replicates, drawn with a known variance."""

from __future__ import annotations

import numpy as np
import pytest

from betavi.diagnostics.effects.noise import prior_of, replicate_noise

N_FEATURES = 400


def draw(rng, variance, rate, clump=1):
    """Return counts whose log rates have the noise of replicates, and Poisson noise in clumps."""
    sd = np.sqrt(np.log1p(variance))
    noisy = rate * np.exp(sd * rng.normal(size=rate.shape) - sd**2 / 2)
    return clump * rng.poisson(noisy / clump)


def found_noise(counts, rate, member, n_lost=0, clump=1):
    return replicate_noise(
        counts, rate, np.full(rate.shape[1], float(clump)), member, n_lost
    ).variance


@pytest.mark.parametrize("variance", [0.0, 0.01, 0.25])
@pytest.mark.parametrize("n_replicates", [2, 5])
def test_the_variance_is_recovered_on_average(variance, n_replicates):
    rng, member = np.random.default_rng(0), np.repeat(np.arange(20), n_replicates)
    rate = rng.gamma(2, 500, (len(member), N_FEATURES))
    found = found_noise(draw(rng, variance, rate), rate, member)
    assert found.shape == (N_FEATURES,)
    assert (found >= 0).all()
    assert found.mean() == pytest.approx(variance, rel=0.15, abs=2e-4)


@pytest.mark.parametrize("clump", [1, 8])
@pytest.mark.parametrize("level", [0.1, 1, 10])
@pytest.mark.parametrize("variance", [0.0, 0.3])
def test_few_counts_do_not_look_like_noise(level, variance, clump):
    rng, member = np.random.default_rng(7), np.repeat(np.arange(60), 3)
    rate = clump * level * rng.lognormal(0, 1, (180, N_FEATURES))
    counts = draw(rng, variance, rate, clump)
    # expected counts of a condition that are wrong, as those of a shrunken effect
    wrong = rate * rng.lognormal(0, 0.7, (60, N_FEATURES))[member]
    found = found_noise(counts, wrong, member, clump=clump)
    # with 0.1 counts, the mean varies by 0.17 between seeds
    assert found.mean() == pytest.approx(variance, rel=0.5 if level >= 1 else 1, abs=0.05)
    assert found.max() < 5 * variance + 0.1


def test_differences_between_conditions_are_not_noise():
    rng, member = np.random.default_rng(1), np.repeat(np.arange(20), 3)
    rate = np.full((60, N_FEATURES), 200.0)
    changed = rate * np.exp(rng.normal(size=(20, N_FEATURES)))[member]
    assert found_noise(draw(rng, 0, changed), rate, member).mean() < 1e-3


def test_features_differ_and_their_estimates_are_shrunk():
    rng, member = np.random.default_rng(2), np.repeat(np.arange(30), 4)
    variance = rng.choice([0.01, 0.3], N_FEATURES)
    rate = np.full((120, N_FEATURES), 100.0)
    found = found_noise(draw(rng, variance, rate), rate, member)
    large = variance > 0.1
    assert found[large].min() > found[~large].max()
    few = found_noise(draw(rng, 0.1, rate[:4]), rate[:4], member[:4])
    # three degrees of freedom have a relative standard deviation of 0.8
    assert few.std() / few.mean() < 0.6


def test_order_of_groups_does_not_matter():
    rng, member = np.random.default_rng(3), np.repeat(np.arange(5), 2)
    rate = rng.gamma(2, 50, (10, N_FEATURES))
    counts = draw(rng, 0.1, rate)
    order = rng.permutation(10)
    other = found_noise(counts[order], rate[order], member[order])
    np.testing.assert_allclose(other, found_noise(counts, rate, member))


@pytest.mark.parametrize(("member", "n_lost"), [(np.arange(6), 0), (np.arange(6) // 2, 3)])
def test_without_replicates_there_is_no_noise(member, n_lost):
    rng = np.random.default_rng(4)
    found = found_noise(rng.poisson(2e6, (6, 9)), np.full((6, 9), 1e6), member, n_lost)
    assert (found == 0).all()


def test_degrees_of_freedom_of_base_levels_are_not_counted():
    rng, member = np.random.default_rng(5), np.repeat(np.arange(2), 5)
    rate = np.full((10, N_FEATURES), 400.0)
    counts, batch = draw(rng, 0.05, rate), np.arange(10) % 2
    for code in (0, 1):
        # expected counts that were fitted to each batch
        rate[batch == code] = counts[batch == code].mean(axis=0)
    assert found_noise(counts, rate, member, n_lost=1).mean() == pytest.approx(0.05, rel=0.15)


def test_groups_without_counts_are_ignored():
    rng, member = np.random.default_rng(6), np.repeat(np.arange(10), 3)
    rate = np.full((30, N_FEATURES), 100.0)
    counts = draw(rng, 0.1, rate)
    # one condition more, whose counts are all zero
    more = np.vstack([rate, np.full((2, N_FEATURES), 1e-300)])
    found = found_noise(
        np.vstack([counts, np.zeros((2, N_FEATURES))]), more, np.append(member, [10, 10])
    )
    assert np.isfinite(found).all()
    assert found.mean() == pytest.approx(0.1, rel=0.15)


@pytest.mark.parametrize("shape", ["flat", "trend"])
def test_the_trend_by_counts_is_recovered(shape):
    rng, member = np.random.default_rng(8), np.repeat(np.arange(4), 3)
    mean = np.exp(rng.uniform(1, 8, 3000))
    variance = 0.04 + (2 / mean if shape == "trend" else 0 * mean)
    rate = np.tile(mean, (12, 1))
    counts = rng.poisson(rate * rng.gamma(1 / variance, variance, rate.shape))
    noise = replicate_noise(counts, rate, np.ones(3000), member)
    for some in (mean < 30, mean > 300):
        expected = variance[some].mean()
        assert noise.variance[some].mean() == pytest.approx(expected, rel=0.25)
    # all features have the noise of the trend
    assert np.median(noise.freedom) > 100


@pytest.mark.parametrize("n_replicates", [2, 3, 4])
def test_degrees_of_freedom_are_those_of_the_spread_of_the_noise(n_replicates):
    rng, member = np.random.default_rng(9), np.repeat(np.arange(4), n_replicates)
    rate = np.full((len(member), 4000), 1000.0)
    variance = 0.04 * 8 / rng.chisquare(8, 4000)
    counts = rng.poisson(rate * rng.gamma(1 / variance, variance, rate.shape))
    noise = replicate_noise(counts, rate, np.ones(4000), member)
    own = 4 * (n_replicates - 1)
    # noise of counts is the same in all features, which adds degrees of freedom
    assert own + 6 < np.median(noise.freedom) < own + 16


@pytest.mark.parametrize(("freedom", "prior"), [(2, 4), (9, 5), (45, 20)])
def test_the_prior_of_variances_is_that_of_an_f_distribution(freedom, prior):
    ratio = 1.7 * np.random.default_rng(10).f(freedom, prior, size=20_000)
    found, centre = prior_of(ratio, np.full(20_000, float(freedom)))
    assert found == pytest.approx(prior, rel=0.15)
    assert centre == pytest.approx(1.7, rel=0.05)
    equal = np.random.default_rng(11).chisquare(freedom, size=20_000) / freedom
    assert prior_of(equal, np.full(20_000, float(freedom)))[0] > 100
