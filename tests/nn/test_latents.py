"""One contract for every kind of latent variable in the table."""

from __future__ import annotations

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from betavi.nn import LATENTS, Point

members = pytest.mark.parametrize("name", LATENTS)


def fused():
    torch.manual_seed(0)
    return Normal(torch.randn(5, 3, requires_grad=True), torch.rand(5, 3) + 0.1)


@members
def test_draws_have_shape_and_gradient(name):
    latent, normal = LATENTS[name](), fused()
    q = latent.posterior(normal)
    torch.testing.assert_close(q.loc, normal.loc)
    assert q.scale.shape == (5, 3)
    z = latent.transform(q.rsample((4,)))
    assert z.shape == (4, 5, 3)
    (z * torch.arange(3.0)).sum().backward()
    assert normal.loc.grad.abs().sum() > 0


@members
def test_rate_is_finite_and_not_negative(name):
    q = LATENTS[name]().posterior(fused())
    rate = kl_divergence(q, Normal(torch.zeros(5, 3), torch.ones(5, 3)))
    assert rate.shape == (5, 3)
    assert (rate >= 0).all()


def test_logistic_normal_lies_on_the_simplex():
    z = LATENTS["ln"]().transform(torch.randn(7, 3))
    torch.testing.assert_close(z.sum(dim=-1), torch.ones(7))
    assert (z > 0).all()


def test_a_point_is_drawn_every_time_and_pays_no_rate():
    point = LATENTS["deterministic"]().posterior(fused())
    assert isinstance(point, Point)
    assert (point.rsample((3,)) == point.mean).all()
    assert (point.scale == 0).all()
    assert (kl_divergence(point, Normal(torch.zeros(5, 3), 1.0)) == 0).all()
