from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import integrate, stats
from torch.distributions import Normal, Poisson

from betavi.objective import constrained, distortion, free_bits, off_capacity, rate


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


def test_free_bits_average_over_the_minibatch_before_they_compare():
    rates = torch.tensor([[0.0, 4.0, 0.1], [1.0, 2.0, 0.1]], requires_grad=True)
    # column means .5, 3, .1: the first is above the threshold only on average
    assert free_bits(rates, 0.4).mean().item() == pytest.approx(0.5 + 3 + 0.4)
    torch.testing.assert_close(constrained(rates, 0.0), rates.sum(dim=1))
    free_bits(rates, 0.4).mean().backward()
    np.testing.assert_allclose(rates.grad[:, :2], 0.5)
    assert (rates.grad[:, 2] == 0).all(), "a free dimension is not reduced"


def test_off_capacity_pulls_from_both_sides():
    for values, slope in (((2.0, 4.0), -0.5), ((1.0, 13.0), 0.5)):
        rate = torch.tensor(values, requires_grad=True)
        distance = off_capacity(rate, 5.0).mean()
        distance.backward()
        assert (distance.item(), rate.grad.tolist()) == (2.0, [slope, slope])
    both = constrained(torch.tensor([[0.1, 3.0]]), nats=0.5, capacity=5.0)
    assert both.tolist() == [pytest.approx(1.5)]
