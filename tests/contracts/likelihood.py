"""The contract of a likelihood, with every dispersion."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from betavi.likelihoods import DISPERSIONS, DispersionSizes, Start
from tests.contracts._state import reloaded

N_HIDDEN, N_GENES, N_CELLS = 8, 12, 30
SIZES = DispersionSizes(n_batch=2, n_labels=3)


def build(cls, dispersion="gene", activation="softmax"):
    torch.manual_seed(0)
    # while training some defer what they are, see tests/kernels
    return cls(N_HIDDEN, N_GENES, activation, dispersion, SIZES).eval()


def inputs(*samples):
    torch.manual_seed(1)
    h = torch.randn(*samples, N_CELLS, N_HIDDEN)
    log_size = torch.full((*samples, N_CELLS, 1), 4.0)
    batch = torch.arange(N_CELLS)[:, None] % SIZES.n_batch
    label = torch.arange(N_CELLS)[:, None] % SIZES.n_labels
    return h, log_size, batch, label


def some_counts():
    torch.manual_seed(2)
    return torch.poisson(torch.ones(N_CELLS, N_GENES))


@torch.no_grad()
def disturbed(part, by=0.5):
    """Return a part whose parameters are no longer those that it starts with."""
    for parameter in part.parameters():
        parameter.add_(by * torch.randn_like(parameter))
    return part


def check_likelihood(cls):
    for dispersion in DISPERSIONS:
        for samples in ((), (3,)):
            shape_value_and_gradient(cls, dispersion, samples)
        for activation in ("softmax", "softplus"):
            some_features_are_decoded_as_among_all(cls, dispersion, activation)
        the_state_survives_saving(cls, dispersion)
    training_starts_at_the_mean(cls)
    masses_of_counts_are_probabilities(cls)
    detection_is_the_mass_of_zero_or_its_complement(cls)
    draws_have_the_mean_of_the_distribution(cls)
    a_mean_of_zero_can_be_drawn_from(cls)
    flags_are_true(cls)
    the_mean_over_counts_is_the_expected_count(cls)
    the_variances_add_up(cls)
    extremes_are_finite(cls)


def shape_value_and_gradient(cls, dispersion, samples):
    likelihood = build(cls, dispersion)
    value = likelihood(*inputs(*samples)).log_prob(some_counts())
    assert value.shape == (*samples, N_CELLS, N_GENES)
    assert torch.isfinite(value).all()
    value.sum().backward()
    for key, parameter in likelihood.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.abs().sum() > 0, key


def some_features_are_decoded_as_among_all(cls, dispersion, activation):
    likelihood = disturbed(build(cls, dispersion, activation), by=0.3)
    chosen, x = np.array([7, 2, 3]), some_counts()
    whole = likelihood(*inputs(3))
    with likelihood.only(chosen):
        some = likelihood(*inputs(3))
    # no other is there
    assert some.mean.shape == (3, N_CELLS, len(chosen))
    of_whole, of_some = likelihood.parameters_of(whole), likelihood.parameters_of(some)
    for key, values in of_whole.items():
        expected = values.expand(3, N_CELLS, N_GENES)[..., chosen]
        torch.testing.assert_close(of_some[key].expand_as(expected), expected)
    for part, expected in zip(
        likelihood.posterior(some, x[:, chosen]), likelihood.posterior(whole, x), strict=True
    ):
        torch.testing.assert_close(part, expected[..., chosen])
    assert likelihood(*inputs()).mean.shape == (N_CELLS, N_GENES)


def the_state_survives_saving(cls, dispersion):
    likelihood = disturbed(build(cls, dispersion))
    other = reloaded(likelihood, build(cls, dispersion))
    x = some_counts()
    torch.testing.assert_close(other(*inputs()).log_prob(x), likelihood(*inputs()).log_prob(x))


@torch.no_grad()
def training_starts_at_the_mean(cls):
    """Where z says nothing the mean of every cell is about the profile."""
    likelihood, profile = build(cls), torch.linspace(1, 4, N_GENES) / 30
    mean = 50 * profile
    logs = (1e4 * profile).log1p()
    likelihood.start_at(Start(profile, mean, mean**2, mean + mean**2, logs, torch.ones(N_GENES)))
    h, log_size, batch, label = inputs()
    px = likelihood(0 * h, log_size - 4, batch, label)
    assert torch.isfinite(px.log_prob(some_counts())).all()
    # not the profile itself: it may be the probability of a detection, or inflated
    assert torch.stack([px.mean[0], profile]).corrcoef()[0, 1] > 0.95


@torch.no_grad()
def masses_of_counts_are_probabilities(cls):
    """Over all counts they sum to one, also of a density; of a detection over its two outcomes."""
    likelihood = build(cls)
    h, log_size, batch, label = inputs()
    px = likelihood(h, log_size, batch, label)
    outcomes = torch.tensor([0.0, 7.0]) if cls.is_of_detection else torch.arange(20_000.0)
    values = outcomes[:, None, None].expand(-1, 2, N_GENES)
    first = likelihood(h[:2], log_size[:2], batch[:2], label[:2])
    total = likelihood.log_mass(first, values).double().logsumexp(dim=0)
    np.testing.assert_allclose(total.exp(), 1.0, rtol=2e-4)
    assert likelihood.log_mass(px, torch.zeros(N_CELLS, N_GENES)).shape == (N_CELLS, N_GENES)


@torch.no_grad()
def detection_is_the_mass_of_zero_or_its_complement(cls):
    likelihood, x = build(cls), some_counts()
    px = likelihood(*inputs())
    zero = likelihood.log_mass(px, torch.zeros_like(x)).double()
    expected = torch.where(x > 0, torch.log1p(-zero.exp()), zero)
    found = likelihood.log_detection(px, x).double()
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


@torch.no_grad()
def draws_have_the_mean_of_the_distribution(cls):
    px = build(cls)(*inputs())
    draws = px.sample((4000,))
    assert draws.shape == (4000, N_CELLS, N_GENES)
    error = (draws.mean(dim=0) - px.mean) / (px.variance / 4000).sqrt()
    # 0.8 is expected of a normal deviate
    assert 0.6 < error.abs().mean() < 1.0


def a_mean_of_zero_can_be_drawn_from(cls):
    likelihood = build(cls)
    if not cls.reads_size:
        return
    h, log_size, batch, label = inputs()
    px = likelihood(h, log_size - 200, batch, label)
    # the log-normal's unit is bounded, and so is its mean from below
    assert (px.get_normalized("mu").abs() < 1e-9).all()
    draws = px.sample()
    assert torch.isfinite(draws).all()
    assert torch.isfinite(px.log_prob(torch.zeros(N_CELLS, N_GENES))).all()
    if cls.of_whole_numbers:
        assert (draws == 0).all()
        assert torch.isfinite(px.log_prob(torch.ones(N_CELLS, N_GENES))).all()


@torch.no_grad()
def flags_are_true(cls):
    likelihood = build(cls)
    h, log_size, batch, label = inputs()
    px, larger = (likelihood(h, size, batch, label) for size in (log_size, log_size + 1))
    assert cls.has_dispersion == ("dispersions" in likelihood.parameters_of(px))
    assert cls.reads_size != torch.equal(larger.mean, px.mean)
    assert cls.of_whole_numbers == bool((px.sample() % 1 == 0).all())
    assert cls.is_of_counts != cls.is_of_detection
    for name in cls.per_batch:
        assert getattr(likelihood, name).shape[1] == SIZES.n_batch, name


@torch.no_grad()
def posteriors(cls, n_draws):
    """Return what a likelihood says of the rates behind draws of its own."""
    likelihood = disturbed(build(cls))
    h, log_size, batch, label = inputs()
    px = likelihood(h.expand(1000, -1, -1), log_size.expand(1000, -1, -1), batch, label)
    found = [likelihood.posterior(px, px.sample()) for _ in range(n_draws // 1000)]
    means, variances = (torch.cat(parts) for parts in zip(*found, strict=True))
    return means, variances, likelihood.expected(px)[0], (px.variance - px.mean)[0]


def the_mean_over_counts_is_the_expected_count(cls):
    """By the tower property, whatever the likelihood."""
    means, variances, expected, _ = posteriors(cls, 4000)
    error = means.std(dim=0) / len(means) ** 0.5
    assert ((means.mean(dim=0) - expected).abs() <= 5 * error + 1e-4).all()
    assert (means >= 0).all()
    assert (expected >= 0).all()
    if not cls.learns_from_counts:
        assert means.std(dim=0).max() < 1e-6
        assert (variances == 0).all()


def the_variances_add_up(cls):
    """Those of the rate given the count, and between counts: all but that of Poisson draws."""
    if not cls.learns_from_counts:
        return
    means, variances, _, of_rate = posteriors(cls, 20_000)
    ratio = (variances.mean(dim=0) + means.double().var(dim=0)) / of_rate
    assert (variances >= 0).all()
    assert ratio.median() == pytest.approx(1, abs=0.02)
    assert ((ratio > 0.7) & (ratio < 1.4)).all()


@torch.no_grad()
def extremes_are_finite(cls):
    likelihood = build(cls)
    h, _, batch, label = inputs()
    for log_size in (-18.0, 0.0, 16.0):
        px = likelihood(h, torch.full((len(h), 1), log_size), batch, label)
        for count in (0.0, 1.0, 1e6):
            mean, variance = likelihood.posterior(px, torch.full(px.mean.shape, count))
            assert torch.isfinite(mean).all()
            assert torch.isfinite(variance).all()
            assert (variance >= 0).all()
