"""Likelihoods beside scipy and scvi-tools; what all of them keep to is in the contract."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import integrate, stats
from scvi import distributions

from betavi.likelihoods import DISPERSIONS, LIKELIHOODS
from tests.conftest import slow_where
from tests.contracts import check_dispersion, check_likelihood
from tests.contracts import likelihood as contract
from tests.contracts.likelihood import N_CELLS, N_GENES, inputs

SCVI = {
    "zinb": distributions.ZeroInflatedNegativeBinomial,
    "nb": distributions.NegativeBinomial,
    "poisson": distributions.Poisson,
    "normal": distributions.Normal,
    "nb_mixture": distributions.NegativeBinomialMixture,
}

members = pytest.mark.parametrize("name", LIKELIHOODS)
extents = pytest.mark.parametrize("dispersion", DISPERSIONS)


@pytest.mark.parametrize("name", slow_where(LIKELIHOODS, {"nb_mixture"}))
def test_every_likelihood_keeps_the_contract(name):
    check_likelihood(LIKELIHOODS[name])


@extents
def test_every_dispersion_keeps_the_contract(dispersion):
    check_dispersion(DISPERSIONS[dispersion])


def build(name, *args, **kwargs):
    return contract.build(LIKELIHOODS[name], *args, **kwargs)


def lognormal_by_scipy(px, x):
    """The density of a shifted log-normal variable: 1 + unit * x."""
    unit = px.unit.double().numpy()
    variable = stats.lognorm(px.deviation.double().numpy(), scale=np.exp(px.loc.double().numpy()))
    return variable.logpdf(1 + unit * x.numpy()) + np.log(unit)


def detection_by_scipy(px, x):
    never = stats.poisson.logpmf(0, px.rate.numpy())
    return np.where(x > 0, np.log1p(-np.exp(never)), never)


SCIPY = {"lognormal": lognormal_by_scipy, "bernoulli": detection_by_scipy}


def test_every_likelihood_has_an_oracle():
    assert SCVI.keys() | SCIPY.keys() == LIKELIHOODS.keys()
    assert not SCVI.keys() & SCIPY.keys()


@extents
@pytest.mark.parametrize("name", SCIPY)
@torch.no_grad()
def test_is_the_distribution_of_scipy(name, dispersion):
    px = build(name, dispersion)(*inputs())
    x = torch.poisson(torch.ones(N_CELLS, N_GENES))
    np.testing.assert_allclose(px.log_prob(x), SCIPY[name](px, x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["normal", "lognormal"])
@torch.no_grad()
def test_what_hardly_can_be_detected_has_a_logarithm_still(name):
    likelihood = build(name)
    torch.nn.init.constant_(likelihood.dispersion.log_theta, -8.0)
    torch.nn.init.zeros_(likelihood.unscaled.weight)
    h, log_size, batch, label = inputs()
    px = likelihood(h, torch.zeros_like(log_size), batch, label)
    seen = likelihood.log_detection(px, torch.ones(N_CELLS, N_GENES))
    assert torch.isfinite(seen).all()
    assert (seen < -1000).all()


@pytest.mark.parametrize("name", ["normal", "lognormal"])
@torch.no_grad()
def test_the_mass_of_a_count_is_the_integral_of_the_density(name):
    likelihood = build(name)
    px = likelihood(*(value[:1] for value in inputs()))
    for count in (1.0, 3.0, 40.0):
        mass = likelihood.log_mass(px, torch.full((1, N_GENES), count))[0, 0]
        grid = torch.linspace(count - 0.5, count + 0.5, 20_001, dtype=torch.float64)
        density = px.log_prob(grid[:, None].expand(-1, N_GENES))[:, 0].double().exp()
        expected = integrate.simpson(density.numpy(), x=grid.numpy())
        np.testing.assert_allclose(mass, np.log(expected), rtol=1e-3)


@pytest.mark.parametrize("name", SCVI)
@extents
def test_is_the_distribution_of_scvi(name, dispersion):
    px = build(name, dispersion)(*inputs())
    assert isinstance(px, SCVI[name])
    x = torch.poisson(torch.ones(N_CELLS, N_GENES))
    theirs = SCVI[name].log_prob(px, x)
    torch.testing.assert_close(px.log_prob(x), theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", [name for name in SCVI if LIKELIHOODS[name].reads_size])
def test_softmax_spends_the_library_and_softplus_does_not(name):
    _, log_size, *_ = inputs()
    shares = build(name)(*inputs())
    free = build(name, activation="softplus")(*inputs())
    torch.testing.assert_close(
        shares.get_normalized("mu").sum(dim=-1, keepdim=True), log_size.exp()
    )
    assert not torch.allclose(free.get_normalized("scale").sum(dim=-1), torch.ones(N_CELLS))


@members
@extents
def test_dispersion_depends_on_what_its_name_says(name, dispersion):
    likelihood = build(name, dispersion)
    if not likelihood.has_dispersion:
        assert "dispersions" not in likelihood.parameters_of(likelihood(*inputs()))
        return
    for parameter in likelihood.dispersion.parameters():
        torch.nn.init.normal_(parameter)
    h, log_size, batch, label = inputs()
    h = h[:1].expand_as(h) if dispersion != "gene-cell" else h
    theta = likelihood.parameters_of(likelihood(h, log_size, batch, label))["dispersions"]
    classes = {
        "gene": torch.zeros(N_CELLS),
        "gene-batch": batch[:, 0],
        "gene-label": label[:, 0],
        "gene-cell": torch.arange(N_CELLS),
    }[dispersion]
    same = torch.cdist(theta, theta, p=1, compute_mode="donot_use_mm_for_euclid_dist") == 0
    assert (same == (classes[:, None] == classes[None, :])).all()


def test_a_mean_of_zero_can_be_drawn_from_where_no_size_is_read():
    likelihood = build("nb_mixture")
    torch.nn.init.constant_(likelihood.size.bias, -200.0)
    px = likelihood(*inputs())
    assert (px.get_normalized("mu") == 0).all()
    assert (px.sample() == 0).all()
    for count in (0.0, 1.0):
        assert torch.isfinite(px.log_prob(torch.full((N_CELLS, N_GENES), count))).all()


@members
def test_labels_are_asked_for(name):
    likelihood = build(name, "gene-label")
    h, log_size, batch, _ = inputs()
    if likelihood.has_dispersion:
        with pytest.raises(ValueError, match="label"):
            likelihood(h, log_size, batch, None)


def test_unknown_words_list_the_table():
    with pytest.raises(ValueError, match="'gene', 'gene-batch', 'gene-label', 'gene-cell'"):
        build("nb", "genes")
    with pytest.raises(ValueError, match="'softmax', 'softplus'"):
        build("nb", activation="relu")


def test_sampling_a_huge_poisson_rate_is_clipped():
    likelihood = build("poisson")
    h, log_size, batch, label = inputs()
    assert torch.isfinite(likelihood(h, log_size + 30, batch, label).sample()).all()
