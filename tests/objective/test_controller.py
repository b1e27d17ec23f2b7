from __future__ import annotations

import math

import numpy as np
import pytest

from betavi.objective import RateController, steer


@pytest.mark.parametrize("target", [0.5, 5.0, 50.0])
@pytest.mark.parametrize("start", [0.01, 1.0, 100.0])
def test_the_controller_finds_the_beta_of_a_known_curve(target, start):
    """A model whose rate follows R = 60 / (1 + β), slowly and with noise, as minibatches show it."""
    rng = np.random.default_rng(0)
    controller, beta, rate = RateController(), start, 20.0
    trace = []
    for _ in range(3000):
        rate += 0.05 * (60 / (1 + beta) - rate)
        beta = controller.next_beta(rate * rng.lognormal(0, 0.1), target, beta)
        trace.append(rate)
    assert np.mean(trace[-500:]) == pytest.approx(target, rel=0.03)
    assert np.ptp(trace[-500:]) < 0.3 * target


def test_the_controllers_state_survives_saving():
    controller = RateController()
    assert controller.beta(3.0) == 3.0
    for rate in (5.0, 8.0, 4.0):
        beta = controller.next_beta(rate, target=2.0, beta=1.0)
    other = RateController()
    other.load_state_dict(controller.state_dict())
    assert other.beta(3.0) == pytest.approx(beta)
    again = [c.next_beta(6.0, 2.0, 1.0) for c in (controller, other)]
    assert again[0] == again[1] > beta


def test_steering_is_bounded():
    assert steer(0.0, error=1e9, last_error=-1e9) < 10
    assert steer(13.8, error=1.0, last_error=-1.0) <= math.log(1e6)
    assert RateController().next_beta(0.0, target=1.0, beta=0.0) == pytest.approx(1e-6, rel=0.1)
