"""The contract of a likelihood of images, with every dispersion."""

from __future__ import annotations

import numpy as np
import torch

from betavi.data import ImageFormat
from betavi.data.start_images import ImageStart
from betavi.likelihoods import DISPERSIONS, DispersionSizes
from tests.contracts._state import reloaded

IMAGE = ImageFormat(2, 8, 12, step=1.0, lowest=0.0, highest=31.0)
N_HIDDEN, N_CELLS = 5 * 2 * 3 + IMAGE.n_pixels, 6
SIZES = DispersionSizes(n_batch=2, n_labels=3)


def some_images(n_cells=N_CELLS):
    torch.manual_seed(2)
    means = torch.tensor([4.0, 12.0]).repeat_interleave(IMAGE.n_pixels // 2)
    return torch.poisson(means.expand(n_cells, -1)).clamp_max(IMAGE.highest)


def start():
    images = some_images(40)
    channels = images.unflatten(-1, (2, -1)).movedim(1, 0).flatten(1)
    return ImageStart(channels.mean(dim=1), channels.std(dim=1), images)


def build(cls, dispersion="gene", image=IMAGE):
    torch.manual_seed(0)
    likelihood = cls(N_HIDDEN, image, dispersion, SIZES).eval()
    likelihood.start_at(start())
    return likelihood


def inputs(*samples):
    torch.manual_seed(1)
    codes = torch.arange(N_CELLS)[:, None]
    h = torch.randn(*samples, N_CELLS, N_HIDDEN)
    return h, torch.zeros(*samples, N_CELLS, 1), codes % 2, codes % 3


def check_image_likelihood(cls):
    for dispersion in DISPERSIONS:
        for samples in ((), (3,)):
            shape_value_and_gradient(cls, dispersion, samples)
        the_state_survives_saving(cls, dispersion)
    training_starts_at_the_mean_of_each_channel(cls)
    draws_have_the_moments_of_the_distribution(cls)
    the_library_size_is_not_read(cls)
    pixels_are_in_their_place(cls)
    a_discrete_likelihood_is_of_grey_levels(cls)


def shape_value_and_gradient(cls, dispersion, samples):
    likelihood = build(cls, dispersion)
    px = likelihood(*inputs(*samples))
    value = px.log_prob(some_images())
    assert value.shape == px.mean.shape == (*samples, N_CELLS, IMAGE.n_pixels)
    assert torch.isfinite(value).all()
    value.sum().backward()
    for key, parameter in likelihood.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.abs().sum() > 0, key


def the_state_survives_saving(cls, dispersion):
    likelihood, x = build(cls, dispersion), some_images()
    torch.manual_seed(3)
    other = reloaded(likelihood, cls(N_HIDDEN, IMAGE, dispersion, SIZES).eval())
    torch.testing.assert_close(other(*inputs()).log_prob(x), likelihood(*inputs()).log_prob(x))


@torch.no_grad()
def training_starts_at_the_mean_of_each_channel(cls):
    h, *others = inputs()
    mean = build(cls)(0 * h, *others).mean.unflatten(-1, (2, -1)).mean(dim=(0, 2))
    torch.testing.assert_close(mean, start().mean, rtol=0.05, atol=0.05)


@torch.no_grad()
def draws_have_the_moments_of_the_distribution(cls):
    # grey levels in the middle of a wide range, so that no draw is at its ends
    wide = IMAGE._replace(highest=4000.0)
    likelihood = build(cls, image=wide)
    if not cls.is_discrete or likelihood.n_outputs > 1:
        likelihood.mean.add_(2000.0)
    px = likelihood(*inputs())
    draws = px.sample((2000,))
    assert draws.shape == (2000, N_CELLS, IMAGE.n_pixels)
    error = (draws.mean(dim=0) - px.mean) / (px.variance / 2000).sqrt()
    # 0.8 is expected of a normal deviate
    assert 0.7 < error.abs().mean() < 0.9
    # rounding to grey levels adds a twelfth
    added = 1 / 12 if likelihood.n_outputs > 1 else 0.0
    assert abs((draws.var(dim=0) / (px.variance + added)).mean() - 1) < 0.02


@torch.no_grad()
def the_library_size_is_not_read(cls):
    h, log_size, batch, label = inputs()
    likelihood = build(cls)
    one, other = (likelihood(h, size, batch, label).mean for size in (log_size, log_size + 3))
    torch.testing.assert_close(one, other)
    assert not cls.reads_size
    assert cls.of_images


@torch.no_grad()
def pixels_are_in_their_place(cls):
    """A change at one corner of the hidden maps hardly changes pixels far from it."""
    likelihood, (h, *others) = build(cls), inputs()
    moved = h.clone()
    # a view of the maps, which the image of the linear path follows
    moved[..., : -IMAGE.n_pixels].unflatten(-1, (5, 2, 3))[..., 0, 0] += 5.0
    change = (likelihood(moved, *others).mean - likelihood(h, *others).mean).abs()
    change = change.unflatten(-1, IMAGE.shape).sum(dim=(0, 1))
    # a kernel of 3 by 3 reaches one more position of 4 by 4 pixels; bands of cosines reach a little farther
    assert change[:, 8:].sum() < 0.05 * change.sum()
    assert change[:, :8].min() > 0


@torch.no_grad()
def a_discrete_likelihood_is_of_grey_levels(cls):
    likelihood = build(cls)
    px = likelihood(*inputs())
    draws = px.sample()
    if not cls.is_discrete:
        assert not torch.equal(draws, draws.round())
        return
    assert torch.equal(draws, draws.round())
    # photon counts have no largest value
    levels = torch.arange(IMAGE.highest + 1 if likelihood.n_outputs > 1 else 2000.0)
    masses = px.log_prob(levels[:, None, None].expand(-1, N_CELLS, IMAGE.n_pixels)).double().exp()
    np.testing.assert_allclose(masses.sum(dim=0), 1.0, rtol=2e-4)
