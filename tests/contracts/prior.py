"""The contract of a prior: its rate beside numerical integration."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import integrate, stats
from torch.distributions import Normal

from betavi.nn import Point
from betavi.objective import log_density, rate, rates
from tests.contracts._state import reloaded

N_CELLS, N_COMPONENTS = 6, 4


def build(cls, n_latent):
    torch.manual_seed(0)
    prior = cls(n_latent, N_COMPONENTS)
    pseudo = None
    if prior.reads_pseudo_cells:
        pseudo = Normal(
            torch.randn(N_COMPONENTS, n_latent), torch.rand(N_COMPONENTS, n_latent) + 0.3
        )
    return prior, prior(pseudo)


def posterior(n_latent):
    torch.manual_seed(1)
    return Normal(torch.randn(N_CELLS, n_latent), torch.rand(N_CELLS, n_latent) * 0.7 + 0.2)


def check_prior(cls):
    the_density_integrates_to_one(cls)
    the_rate_agrees_with_numerical_integration(cls)
    shapes_and_gradients(cls)
    estimates_have_the_gradient_of_the_exact_rate(cls)
    a_point_pays_no_rate(cls)
    the_state_survives_saving(cls)


def is_exact(p):
    """Say whether the rate has a closed form, and no draw is needed."""
    return isinstance(p, Normal)


def the_density_integrates_to_one(cls):
    _, p = build(cls, 1)
    grid = torch.linspace(-12, 12, 20_001, dtype=torch.float64)
    density = log_density(p, grid[:, None]).exp().detach()
    assert integrate.simpson(density, x=grid) == pytest.approx(1, abs=1e-4)


@torch.no_grad()
def the_rate_agrees_with_numerical_integration(cls):
    _, p = build(cls, 1)
    q = posterior(1)
    grid = torch.linspace(-9, 9, 40_001)[:, None, None]
    log_q = log_density(q, grid.expand(-1, N_CELLS, 1)).double()
    log_p = log_density(p, grid.expand(-1, N_CELLS, 1)).double()
    expected = integrate.simpson(log_q.exp() * (log_q - log_p), x=grid.flatten(), axis=0)
    torch.manual_seed(2)
    found = rate(q, p, q.sample((40_000,)))
    found = found if is_exact(p) else found.mean(dim=0)
    np.testing.assert_allclose(found, expected, atol=1e-5 if is_exact(p) else 0.02)


def shapes_and_gradients(cls):
    prior, p = build(cls, 3)
    q = posterior(3)
    columns = rates(q, p, q.rsample())
    assert columns.shape == (N_CELLS, 1 if p.event_shape else 3)
    assert log_density(p, torch.zeros(5, N_CELLS, 3)).shape == (5, N_CELLS)
    assert p.sample((7,)).shape[0] == 7
    for key, parameter in prior.named_parameters():
        (gradient,) = torch.autograd.grad(columns.sum(), parameter, retain_graph=True)
        assert gradient.abs().sum() > 0, key


def estimates_have_the_gradient_of_the_exact_rate(cls):
    """The mean over draws of the gradient is the gradient of the integral, by differences."""
    _, p = build(cls, 1)
    loc = torch.tensor([[0.4]], requires_grad=True)
    q = Normal(loc, torch.tensor([[0.6]]))
    torch.manual_seed(3)
    rate(q, p, q.rsample((100_000,))).mean().backward()

    def integral(mean):
        grid = np.linspace(-9, 9, 20_001)
        log_q = stats.norm.logpdf(grid, mean, 0.6)
        log_p = log_density(p, torch.tensor(grid)[:, None]).detach().numpy()
        return integrate.simpson(np.exp(log_q) * (log_q - log_p), x=grid)

    difference = (integral(0.4 + 1e-3) - integral(0.4 - 1e-3)) / 2e-3
    assert loc.grad.item() == pytest.approx(difference, abs=0.02)


def a_point_pays_no_rate(cls):
    _, p = build(cls, 3)
    point = Point(torch.randn(N_CELLS, 3))
    assert (rate(point, p, point.rsample()) == 0).all()


def the_state_survives_saving(cls):
    prior, p = build(cls, 3)
    other = reloaded(prior, cls(3, N_COMPONENTS))
    if not prior.reads_pseudo_cells:
        u = torch.randn(N_CELLS, 3)
        torch.testing.assert_close(log_density(other(None), u), log_density(p, u))
