"""Likelihoods of images beside scipy; what all of them keep to is in the contract."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import fft, stats

from betavi.data import ImageFormat
from betavi.likelihoods import IMAGE_LIKELIHOODS, CosineBasis, DispersionSizes
from betavi.likelihoods._cosines import frequency_bands
from betavi.likelihoods._haar import HaarBasis
from betavi.likelihoods.normal_image import ImageNormal
from tests.contracts import check_image_likelihood
from tests.contracts.image_likelihood import build, inputs, some_images

SMALL = ImageFormat(1, 4, 4)


@pytest.mark.parametrize("name", IMAGE_LIKELIHOODS)
def test_every_likelihood_of_images_keeps_the_contract(name):
    check_image_likelihood(IMAGE_LIKELIHOODS[name])


def test_coefficients_are_those_of_scipy():
    images = torch.randn(3, 2, 16, 8)
    found = CosineBasis(2, 16, 8)(images.flatten(1)).unflatten(1, (2, 16, 8))
    expected = fft.dctn(images.double().numpy(), axes=(2, 3), norm="ortho")
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("per_octave", [1, 2, 4])
def test_bands_are_ordered_by_frequency(per_octave):
    height, width = 32, 48
    bands = frequency_bands(height, width, per_octave)
    y, x = np.mgrid[:height, :width]
    frequency = np.hypot(y / height, x / width)
    order = np.argsort(frequency, axis=None, kind="stable")
    assert (np.diff(bands.ravel()[order]) >= 0).all()
    assert np.count_nonzero(bands == 0) == 1
    # the two finest bands have the ratio of frequencies that they should have
    smallest = [frequency[bands == band].min() for band in (bands.max() - 1, bands.max())]
    assert smallest[1] / smallest[0] == pytest.approx(2 ** (1 / per_octave), rel=0.03)


@pytest.mark.parametrize("basis_class", [CosineBasis, HaarBasis])
@pytest.mark.parametrize("shape", [(1, 4, 4), (2, 16, 8), (1, 32, 48), (1, 5, 7)])
def test_the_basis_is_orthonormal(shape, basis_class):
    basis = basis_class(*shape)
    unit = torch.eye(math.prod(shape))
    coefficients = basis(unit)
    torch.testing.assert_close(coefficients @ coefficients.T, unit, atol=1e-5, rtol=0)
    torch.testing.assert_close(basis.inverse(coefficients), unit, atol=1e-5, rtol=0)
    assert basis.bands.unique().tolist() == list(range(shape[0] * basis.n_bands))


def test_energy_of_a_wave_is_in_the_band_of_its_scale():
    """Fast stripes are in the finest bands, slow ones in the coarsest, also if they end in a wave."""
    basis, x = CosineBasis(1, 64, 64), torch.arange(64.0)
    shares = []
    for period in (2.5, 100):
        wave = torch.cos(2 * torch.pi * x / period).expand(64, 64).flatten()
        energy = torch.zeros(basis.n_bands).index_add_(0, basis.bands, basis(wave).square())
        shares.append(energy / energy.sum())
    assert shares[0][-8:].sum() > 0.95
    assert shares[1][:5].sum() > 0.98
    flat = basis(torch.ones(64 * 64)).square()
    assert flat[basis.bands > 0].max() < 1e-6


def covariance(basis, deviation):
    """Return the covariance of pixels, from the coefficients' deviations."""
    functions = basis(torch.eye(deviation.numel())).double()
    return (functions * deviation.double().square()) @ functions.T


def random_bands(basis):
    torch.manual_seed(0)
    return (0.5 + 3 * torch.rand(int(basis.bands.max()) + 1))[basis.bands]


def test_the_density_of_bands_is_a_multivariate_normal():
    basis = CosineBasis(*SMALL.shape)
    deviation, loc, x = random_bands(basis), torch.randn(16), 3 * torch.randn(5, 16)
    found = ImageNormal(loc.expand(5, 16), deviation, 1.0, basis).log_density(x).sum(dim=1)
    expected = stats.multivariate_normal(loc.numpy(), covariance(basis, deviation).numpy())
    np.testing.assert_allclose(found, expected.logpdf(x.numpy()), rtol=1e-5)


def test_the_variance_of_pixels_is_the_diagonal_of_the_covariance():
    basis = CosineBasis(2, 16, 8)
    deviation = random_bands(basis)
    px = ImageNormal(torch.zeros(1, 256), deviation, 1.0, basis)
    np.testing.assert_allclose(px.variance[0], covariance(basis, deviation).diagonal(), rtol=1e-4)


@pytest.mark.parametrize("step", [0.5, 1.0, 4.0])
def test_the_log_probability_is_the_mean_over_the_quantisation_step(step):
    """And below the probability of the bin, which it approaches for small steps."""
    basis = CosineBasis(*SMALL.shape)
    px = ImageNormal(torch.zeros(1, 16), random_bands(basis), step, basis)
    x = step * torch.randint(-2, 3, (1, 16))
    torch.manual_seed(1)
    noise = step * (torch.rand(200_000, 16) - 0.5)
    densities = px.log_density(x + noise).sum(dim=1).double() + 16 * math.log(step)
    found = px.log_prob(x).sum().item()
    error = densities.std().item() / 200_000**0.5
    assert found == pytest.approx(densities.mean().item(), abs=5 * error)
    mass = densities.logsumexp(0).item() - math.log(200_000)
    assert found < mass + 1e-3
    assert mass - found < 8 * step**2


def test_one_pixel_loses_little_by_the_bound():
    levels = torch.arange(-60.0, 61.0)
    px = ImageNormal(torch.zeros(1, 1), torch.tensor([5.0]), 1.0)
    masses = px.log_prob(levels[:, None]).exp()
    exact = np.diff(stats.norm(0, 5).cdf(np.arange(-60.5, 61)))
    assert (masses.numpy().ravel() <= exact + 1e-6).all()
    assert 0.998 < masses.sum() < 1


@torch.no_grad()
def test_the_mixture_is_that_of_scipy():
    px, x = build(IMAGE_LIKELIHOODS["logistic_mixture"])(*inputs()), some_images()
    x[0, :2] = torch.tensor([0.0, 31.0])
    shares = px.logits.double().softmax(dim=-1).numpy()
    component = stats.logistic(px.loc.double().numpy(), px.deviation.double().numpy())
    values = x.numpy()[..., None]
    low = np.where(values == 0, 0.0, component.cdf(values - 0.5))
    inside = component.cdf(values + 0.5) - low
    # one minus a probability near one has no digits
    masses = np.where(values == 31, component.sf(values - 0.5), inside)
    expected = np.log((shares * masses).sum(axis=-1))
    np.testing.assert_allclose(px.log_prob(x), expected, rtol=1e-3, atol=1e-4)


@torch.no_grad()
def test_photon_counts_are_those_of_scipy():
    x = some_images()
    px = build(IMAGE_LIKELIHOODS["poisson"])(*inputs())
    expected = stats.poisson.logpmf(x, px.rate.numpy())
    np.testing.assert_allclose(px.log_prob(x), expected, rtol=1e-3, atol=1e-4)
    px = build(IMAGE_LIKELIHOODS["nb"])(*inputs())
    share = (px.theta / (px.theta + px.mu)).double().numpy()
    expected = stats.nbinom.logpmf(x, px.theta.double().numpy(), share)
    np.testing.assert_allclose(px.log_prob(x), expected, rtol=1e-3, atol=1e-3)


@torch.no_grad()
def test_noise_that_differs_between_bands_is_worth_bits():
    """On coloured noise, a deviation for each band beats one for all, by the known difference."""
    basis = CosineBasis(1, 16, 16)
    deviation = random_bands(basis)
    torch.manual_seed(3)
    images = basis.inverse(deviation * torch.randn(400, 256))
    pooled = images.square().mean().sqrt()
    bands = ImageNormal(torch.zeros(400, 256), deviation, 0.01, basis).log_prob(images)
    white = ImageNormal(torch.zeros(400, 256), pooled.expand(256), 0.01).log_prob(images)
    expected = pooled.log() - deviation.log().mean()
    assert (bands - white).mean() == pytest.approx(expected.item(), abs=0.02)


def test_a_step_of_zero_noise_is_not_worth_infinite_bits():
    """A density without the step would grow without limit on constant pixels."""
    nats = [
        ImageNormal(torch.zeros(1, 1), torch.tensor([noise]), 1.0)
        .log_prob(torch.zeros(1, 1))
        .item()
        for noise in (1e-3, 0.1, 0.29, 1.0)
    ]
    assert max(nats) == nats[2] < 0


@pytest.mark.parametrize(
    ("name", "image", "words"),
    [
        ("poisson", ImageFormat(1, 32, 32, lowest=-3.0), "lowest value of the images is -3"),
        ("nb", ImageFormat(1, 32, 32, step=0.5), "not whole numbers"),
        ("poisson", ImageFormat(1, 32, 32, has_step=False), "not whole numbers"),
        ("logistic_mixture", ImageFormat(1, 32, 32, has_step=False), "no grid of grey levels"),
        ("logistic_mixture", ImageFormat(1, 32, 32, highest=1e5), "100001 grey levels"),
    ],
)
def test_images_that_do_not_fit_are_refused(name, image, words):
    with pytest.raises(ValueError, match=words):
        IMAGE_LIKELIHOODS[name](128, image, "gene", DispersionSizes(1, 1))
