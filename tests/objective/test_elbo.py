from __future__ import annotations

import numpy as np
import torch
from scipy import integrate, stats
from torch.distributions import Normal, Poisson

from betavi.objective import distortion, rate


def test_rate_agrees_with_numerical_integration():
    mean, deviation = 0.7, 0.4
    q = stats.norm(mean, deviation)
    expected, _ = integrate.quad(
        lambda z: q.pdf(z) * (q.logpdf(z) - stats.norm.logpdf(z)), mean - 6, mean + 6
    )
    q = Normal(torch.full((2, 3), mean), torch.full((2, 3), deviation))
    value = rate(q, Normal(torch.zeros(2, 3), torch.ones(2, 3)), q.sample())
    np.testing.assert_allclose(value, 3 * expected, rtol=1e-5)


def test_distortion_is_the_negative_log_likelihood_summed_over_genes():
    x = torch.tensor([[0.0, 3.0], [1.0, 1.0]])
    means = torch.tensor([[0.5, 2.0], [1.0, 4.0]])
    expected = -stats.poisson.logpmf(x, means).sum(axis=1)
    np.testing.assert_allclose(distortion(Poisson(means), x), expected, rtol=1e-5)


def test_an_unmeasured_cell_has_neither_distortion_nor_gradient():
    means = torch.ones(3, 2, requires_grad=True)
    present = torch.tensor([[True], [False], [True]])
    value = distortion(Poisson(means), torch.ones(3, 2), present)
    assert value[1] == 0
    value.sum().backward()
    assert (means.grad[1] == 0).all()
