from __future__ import annotations

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from betavi.nn import LATENTS, Point
from tests.contracts import check_latent
from tests.contracts.latent import fused


@pytest.mark.parametrize("name", LATENTS)
def test_every_latent_variable_keeps_the_contract(name):
    check_latent(LATENTS[name])


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
