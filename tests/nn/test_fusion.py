"""Fusion rules beside numerical integration; what all of them keep to is in the contract."""

from __future__ import annotations

import pytest
import torch
from torch.distributions import Normal

from betavi.nn import FUSIONS, NormalMixture
from betavi.objective import rates
from tests.contracts import check_fusion
from tests.contracts.fusion import experts


@pytest.mark.parametrize("name", FUSIONS)
def test_every_rule_keeps_the_contract(name):
    check_fusion(FUSIONS[name])


def test_a_single_expert_is_the_posterior():
    given = experts("rna")
    assert FUSIONS["single"]()(given, {}) is given["rna"]


def test_product_of_experts_is_the_normalised_product_of_densities():
    """Numerical integration of prior times experts in one dimension."""
    given = {
        "rna": Normal(torch.tensor([[0.7]]), torch.tensor([[0.5]])),
        "adt": Normal(torch.tensor([[-1.2]]), torch.tensor([[1.3]])),
    }
    q = FUSIONS["poe"]()(given, {})
    grid = torch.linspace(-12, 12, 200_001, dtype=torch.float64)
    log_density = Normal(0.0, 1.0).log_prob(grid)
    for expert in given.values():
        log_density = log_density + expert.log_prob(grid).squeeze()
    weight = log_density.softmax(dim=0)
    mean = (weight * grid).sum()
    deviation = (weight * (grid - mean).square()).sum().sqrt()
    torch.testing.assert_close(q.loc.double().squeeze(), mean, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(q.scale.double().squeeze(), deviation, rtol=1e-5, atol=1e-6)


def on_a_grid(n=401, width=7.0):
    axis = torch.linspace(-width, width, n, dtype=torch.float64)
    u = torch.cartesian_prod(axis, axis)
    return u, (axis[1] - axis[0]) ** 2


def in_two_dimensions():
    """Two experts of one cell, far enough apart for a mixture to have two modes."""
    loc = {"rna": [1.5, 0.3], "adt": [-1.0, 0.8]}
    scale = {"rna": [0.5, 0.9], "adt": [0.7, 0.4]}
    as_row = lambda values: torch.tensor([values], dtype=torch.float64)  # noqa: E731
    return {name: Normal(as_row(loc[name]), as_row(scale[name])) for name in loc}


@pytest.mark.parametrize("name", ["moe", "mopoe"])
def test_mixtures_agree_with_numerical_integration(name):
    given = in_two_dimensions()
    q = FUSIONS[name]()(given, {})
    prior = Normal(torch.zeros(2, dtype=torch.float64), 1.0)
    parts = [Normal(e.loc, e.scale) for e in given.values()]
    if name == "mopoe":
        poe = FUSIONS["poe"]()
        parts = [poe({k: given[k]}, {}) for k in given] + [poe(given, {})]
    u, area = on_a_grid()
    density = torch.stack([part.log_prob(u).sum(dim=1).exp() for part in parts]).mean(dim=0)
    torch.testing.assert_close(q.log_prob(u[:, None]).squeeze(1), density.log())
    mean = (density[:, None] * u).sum(dim=0) * area
    spread = (density[:, None] * (u - mean).square()).sum(dim=0) * area
    torch.testing.assert_close(q.mean[0], mean, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(q.variance[0], spread, rtol=1e-6, atol=1e-6)
    # the rate, at strata and at plain draws
    kl = (density * (density.log() - prior.log_prob(u).sum(dim=1))).sum() * area
    torch.manual_seed(0)
    many = NormalMixture(
        *(part.expand(-1, 40_000, -1) for part in (q.components.loc, q.components.scale)),
        q.weights.expand(-1, 40_000),
    )
    strata = many.strata()
    torch.testing.assert_close(
        many.average(rates(many, prior, strata).squeeze(-1)).mean(), kl, rtol=0.01, atol=0
    )
    torch.testing.assert_close(rates(many, prior, many.rsample()).mean(), kl, rtol=0.02, atol=0)
    # as of a normal distribution, no draws are an empty tensor
    for n_draws in ((), (0,), (3,)):
        assert q.rsample(n_draws).shape == q.last.rsample(n_draws).shape
    # strata vary less than draws of the mixture
    draws = [many.average(strata.square().sum(-1)).var(), many.rsample().square().sum(-1).var()]
    assert draws[0] < draws[1]


def test_total_correlation_draws_each_expert_to_the_product():
    given, fusion = in_two_dimensions(), FUSIONS["mvtcae"]()
    q = fusion(given, {})
    u, area = on_a_grid()
    log_q = q.log_prob(u).sum(dim=1)
    kls = [
        (log_q.exp() * (log_q - expert.log_prob(u).sum(dim=1))).sum() * area
        for expert in given.values()
    ]
    rate, alpha = torch.tensor([3.0], dtype=torch.double), fusion.alpha
    found = fusion.penalty(rate, q, given, {})
    # as published, which weighs the distortion by (M - alpha) / M
    published = (1 - alpha) * rate + alpha / 2 * sum(kls)
    torch.testing.assert_close(found * (2 - alpha) / 2, published, rtol=1e-5, atol=0)
    alone = {"adt": torch.tensor([[False]])}
    # one expert agrees with itself, and the cell has the ELBO
    found = fusion.penalty(rate, fusion(given, alone), given, alone)
    torch.testing.assert_close(found, rate, rtol=1e-5, atol=0)


@pytest.mark.parametrize("name", ["poe", "moe", "mopoe", "single"])
def test_the_penalty_of_other_rules_is_the_rate(name):
    given = in_two_dimensions()
    given = {"rna": given["rna"]} if name == "single" else given
    fusion, rate = FUSIONS[name](), torch.tensor([3.0])
    assert fusion.penalty(rate, fusion(given, {}), given, {}) is rate
