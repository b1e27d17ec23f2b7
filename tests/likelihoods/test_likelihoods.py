"""One contract for every likelihood in the table, with every dispersion."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import integrate, stats
from scvi import distributions

from betavi.likelihoods import DISPERSIONS, LIKELIHOODS, DispersionSizes

N_HIDDEN, N_GENES, N_CELLS = 8, 12, 30
SIZES = DispersionSizes(n_batch=2, n_labels=3)
SCVI = {
    "zinb": distributions.ZeroInflatedNegativeBinomial,
    "nb": distributions.NegativeBinomial,
    "poisson": distributions.Poisson,
    "normal": distributions.Normal,
    "nb_mixture": distributions.NegativeBinomialMixture,
}

members = pytest.mark.parametrize("name", LIKELIHOODS)
extents = pytest.mark.parametrize("dispersion", DISPERSIONS)


def build(name, dispersion="gene", activation="softmax"):
    torch.manual_seed(0)
    # while training some defer what they are, see tests/kernels
    return LIKELIHOODS[name](N_HIDDEN, N_GENES, activation, dispersion, SIZES).eval()


def inputs(*samples):
    torch.manual_seed(1)
    h = torch.randn(*samples, N_CELLS, N_HIDDEN)
    log_size = torch.full((*samples, N_CELLS, 1), 4.0)
    batch = torch.arange(N_CELLS)[:, None] % SIZES.n_batch
    label = torch.arange(N_CELLS)[:, None] % SIZES.n_labels
    return h, log_size, batch, label


@members
@extents
@pytest.mark.parametrize("samples", [(), (3,)])
def test_shape_value_and_gradient(name, dispersion, samples):
    likelihood = build(name, dispersion)
    px = likelihood(*inputs(*samples))
    x = torch.poisson(torch.ones(N_CELLS, N_GENES))
    value = px.log_prob(x)
    assert value.shape == (*samples, N_CELLS, N_GENES)
    assert torch.isfinite(value).all()
    value.sum().backward()
    for key, parameter in likelihood.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.abs().sum() > 0, key


@members
@extents
@pytest.mark.parametrize("activation", ["softmax", "softplus"])
def test_some_features_are_decoded_as_among_all(name, dispersion, activation):
    likelihood, chosen = build(name, dispersion, activation), np.array([7, 2, 3])
    with torch.no_grad():
        for parameter in likelihood.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    whole = likelihood(*inputs(3))
    with likelihood.only(chosen):
        some = likelihood(*inputs(3))
    # no other is there
    assert some.mean.shape == (3, N_CELLS, len(chosen))
    of_whole, of_some = likelihood.parameters_of(whole), likelihood.parameters_of(some)
    for key, values in of_whole.items():
        expected = values.expand(3, N_CELLS, N_GENES)[..., chosen]
        torch.testing.assert_close(of_some[key].expand_as(expected), expected)
    x = torch.poisson(torch.ones(N_CELLS, N_GENES))
    for part, expected in zip(
        likelihood.posterior(some, x[:, chosen]), likelihood.posterior(whole, x), strict=True
    ):
        torch.testing.assert_close(part, expected[..., chosen])
    assert likelihood(*inputs()).mean.shape == (N_CELLS, N_GENES)


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


@members
@torch.no_grad()
def test_masses_of_counts_are_probabilities(name):
    """Over all counts they sum to one, also of a density; of a detection over its two outcomes."""
    likelihood = build(name)
    h, log_size, batch, label = inputs()
    px = likelihood(h, log_size, batch, label)
    outcomes = torch.tensor([0.0, 7.0]) if name == "bernoulli" else torch.arange(20_000.0)
    values = outcomes[:, None, None].expand(-1, 2, N_GENES)
    first = likelihood(h[:2], log_size[:2], batch[:2], label[:2])
    total = likelihood.log_mass(first, values).double().logsumexp(dim=0)
    np.testing.assert_allclose(total.exp(), 1.0, rtol=2e-4)
    assert likelihood.log_mass(px, torch.zeros(N_CELLS, N_GENES)).shape == (N_CELLS, N_GENES)


@members
@torch.no_grad()
def test_detection_is_the_mass_of_zero_or_its_complement(name):
    likelihood = build(name)
    px, x = likelihood(*inputs()), torch.poisson(torch.ones(N_CELLS, N_GENES))
    zero = likelihood.log_mass(px, torch.zeros_like(x)).double()
    expected = torch.where(x > 0, torch.log1p(-zero.exp()), zero)
    torch.testing.assert_close(
        likelihood.log_detection(px, x).double(), expected, rtol=1e-3, atol=1e-3
    )


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


@members
@torch.no_grad()
def test_draws_have_the_mean_of_the_distribution(name):
    px = build(name)(*inputs())
    draws = px.sample((4000,))
    assert draws.shape == (4000, N_CELLS, N_GENES)
    error = (draws.mean(dim=0) - px.mean) / (px.variance / 4000).sqrt()
    # 0.8 is expected of a normal deviate
    assert 0.6 < error.abs().mean() < 1.0


@members
def test_a_mean_of_zero_can_be_drawn_from(name):
    likelihood = build(name)
    h, log_size, batch, label = inputs()
    if not likelihood.reads_size:
        torch.nn.init.constant_(likelihood.size.bias, -200.0)
    px = likelihood(h, log_size - 200, batch, label)
    # the log-normal's unit is bounded, and so is its mean from below
    assert (px.get_normalized("mu").abs() < 1e-9).all()
    draws = px.sample()
    assert torch.isfinite(draws).all()
    assert torch.isfinite(px.log_prob(torch.zeros(N_CELLS, N_GENES))).all()
    if name not in {"normal", "lognormal"}:
        assert (draws == 0).all()
        assert torch.isfinite(px.log_prob(torch.ones(N_CELLS, N_GENES))).all()


@members
@extents
def test_state_survives_saving(name, dispersion, tmp_path):
    likelihood = build(name, dispersion)
    torch.save(likelihood.state_dict(), tmp_path / "state.pt")
    torch.manual_seed(5)
    other = LIKELIHOODS[name](N_HIDDEN, N_GENES, "softmax", dispersion, SIZES)
    other.load_state_dict(torch.load(tmp_path / "state.pt"))
    x = torch.poisson(torch.ones(N_CELLS, N_GENES))
    torch.testing.assert_close(other(*inputs()).log_prob(x), likelihood(*inputs()).log_prob(x))


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
