"""What a count says of what it was drawn from, beside numerical integration and simulation."""

from __future__ import annotations

import pytest
import torch
from scipy import integrate, stats

from betavi.likelihoods import LIKELIHOODS
from tests.contracts.likelihood import build, disturbed, inputs


def distribution(name):
    likelihood = disturbed(build(LIKELIHOODS[name]))
    with torch.no_grad():
        return likelihood, likelihood(*inputs())


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
