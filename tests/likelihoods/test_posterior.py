"""What a count says of what it was drawn from, beside numerical integration and simulation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import integrate, stats

from betavi.likelihoods import LIKELIHOODS
from tests.likelihoods.test_likelihoods import build, inputs

members = pytest.mark.parametrize("name", LIKELIHOODS)


def distribution(name):
    torch.manual_seed(0)
    likelihood = build(name)
    with torch.no_grad():
        for parameter in likelihood.parameters():
            parameter.add_(0.5 * torch.randn_like(parameter))
        px = likelihood(*inputs())
    return likelihood, px


@members
def test_the_mean_over_counts_is_the_expected_count(name):
    """By the tower property, whatever the likelihood."""
    likelihood, px = distribution(name)
    counts = px.sample((4000,))
    means = torch.stack([likelihood.posterior(px, x)[0] for x in counts])
    error = means.std(dim=0) / len(counts) ** 0.5
    assert ((means.mean(dim=0) - likelihood.expected(px)).abs() <= 5 * error + 1e-4).all()
    assert (means >= 0).all()
    assert (likelihood.expected(px) >= 0).all()
    if not likelihood.learns_from_counts:
        assert means.std(dim=0).max() < 1e-6


@pytest.mark.parametrize("name", [k for k, v in LIKELIHOODS.items() if v.learns_from_counts])
def test_the_variances_add_up(name):
    """Those of the rate given the count, and between counts: all but that of Poisson draws."""
    likelihood, px = distribution(name)
    counts = px.sample((20_000,))
    found = [likelihood.posterior(px, x) for x in counts]
    within = torch.stack([variance for _, variance in found]).mean(dim=0)
    between = torch.stack([mean for mean, _ in found]).double().var(dim=0)
    of_rate = px.variance - px.mean
    ratio = (within + between) / of_rate
    assert (within >= 0).all()
    assert ratio.median() == pytest.approx(1, abs=0.02)
    assert ((ratio > 0.7) & (ratio < 1.4)).all()


def gamma_weight(mu, theta, count):
    """Return prior times likelihood of a rate, as a function."""
    prior = stats.gamma(theta, scale=mu / theta)
    return lambda rate: prior.pdf(rate) * stats.poisson.pmf(count, rate)


def integrated(mu, theta, count, power):
    weight = gamma_weight(mu, theta, count)
    high = stats.gamma(theta + count, scale=mu / (theta + mu)).ppf(1 - 1e-12)
    return integrate.quad(lambda rate: rate**power * weight(rate), 0, high, limit=200)[0]


@pytest.mark.parametrize("count", [0, 1, 7])
@pytest.mark.parametrize("name", ["nb", "zinb", "nb_mixture"])
def test_moments_beside_integration(name, count):
    likelihood, px = distribution(name)
    counts = torch.full(px.mean.shape, float(count))
    mean, variance = likelihood.posterior(px, counts)
    for cell, gene in [(0, 0), (3, 5), (11, 7)]:
        at = {k: float(v[cell, gene]) for k, v in likelihood.parameters_of(px).items()}
        theta = at["dispersions"]
        if name == "nb_mixture":
            share = at["foreground_probability"]
            parts = [(1 - share, at["background"]), (share, at["foreground"])]
        else:
            parts = [(1 - at.get("dropout", 0.0), at["mean"])]
        # what was dropped has a rate of zero, and no count but zero
        dropped = at.get("dropout", 0.0) if count == 0 else 0.0
        zeroth = dropped + sum(w * integrated(mu, theta, count, 0) for w, mu in parts)
        first, second = (
            sum(w * integrated(mu, theta, count, power) for w, mu in parts) / zeroth
            for power in (1, 2)
        )
        assert float(mean[cell, gene]) == pytest.approx(first, rel=1e-3)
        assert float(variance[cell, gene]) == pytest.approx(second - first**2, rel=1e-2)


def test_a_count_pulls_the_rate_towards_itself():
    likelihood, px = distribution("nb")
    low, high = (likelihood.posterior(px, torch.full(px.mean.shape, c))[0] for c in (0.0, 50.0))
    assert (low < px.mean).all()
    # up from below the count, and down from above it, and never past it
    assert ((high - px.mean).sign() == (50 - px.mean).sign()).all()
    assert ((high - 50).abs() < (px.mean - 50).abs()).all()


@members
def test_extremes_are_finite(name):
    likelihood = build(name)
    h, _, batch, label = inputs()
    for log_size in (-18.0, 0.0, 16.0):
        px = likelihood(h, torch.full((len(h), 1), log_size), batch, label)
        for count in (0.0, 1.0, 1e6):
            mean, variance = likelihood.posterior(px, torch.full(px.mean.shape, count))
            assert np.isfinite(mean.detach().numpy()).all()
            assert np.isfinite(variance.detach().numpy()).all()
            assert (variance >= 0).all()
