"""The contract of a latent variable."""

from __future__ import annotations

import torch
from torch.distributions import Normal, kl_divergence


def fused():
    torch.manual_seed(0)
    return Normal(torch.randn(5, 3, requires_grad=True), torch.rand(5, 3) + 0.1)


def check_latent(cls):
    draws_have_shape_and_gradient(cls)
    the_rate_is_finite_and_not_negative(cls)
    flags_are_true(cls)
    the_mean_is_that_of_draws(cls)


def draws_have_shape_and_gradient(cls):
    latent, normal = cls(), fused()
    q = latent.posterior(normal)
    torch.testing.assert_close(q.loc, normal.loc)
    assert q.scale.shape == (5, 3)
    z = latent.transform(q.rsample((4,)))
    assert z.shape == (4, 5, 3)
    (z * torch.arange(3.0)).sum().backward()
    assert normal.loc.grad.abs().sum() > 0


def the_rate_is_finite_and_not_negative(cls):
    rate = kl_divergence(cls().posterior(fused()), Normal(torch.zeros(5, 3), torch.ones(5, 3)))
    assert rate.shape == (5, 3)
    assert (rate >= 0).all()
    assert torch.isfinite(rate).all()


def flags_are_true(cls):
    latent = cls()
    q = latent.posterior(fused())
    z = latent.transform(q.rsample())
    assert cls.is_deterministic == bool((q.scale == 0).all())
    assert cls.is_on_simplex == bool((z > 0).all() and torch.allclose(z.sum(dim=1), torch.ones(5)))


def the_mean_is_that_of_draws(cls):
    latent = cls()
    q = latent.posterior(fused())
    torch.manual_seed(1)
    draws = latent.transform(q.sample((10_000,)))
    mean = latent.mean(q, 10_000)
    assert mean.shape == (5, 3)
    torch.testing.assert_close(mean, draws.mean(dim=0), rtol=0, atol=0.05)
