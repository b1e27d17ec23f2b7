"""Steps in memory order are the steps that PyTorch takes."""

from __future__ import annotations

import copy

import pytest
import torch

from betavi.kernels import CountsLinear
from betavi.train.optimizer import ORDERED


@pytest.mark.parametrize("cls", ORDERED)
@pytest.mark.parametrize("with_closure", [True, False])
def test_parameters_move_as_without(cls, with_closure):
    torch.manual_seed(0)
    ours = torch.nn.Sequential(CountsLinear(7, 5), torch.nn.ReLU(), torch.nn.Linear(5, 3))
    theirs = copy.deepcopy(ours)
    stride = ours[0].weight.stride()
    assert stride == (1, 5)
    options = {"lr": 0.1, "eps": 0.01, "weight_decay": 1e-3}
    steps = (
        ORDERED[cls](ours.parameters(), fused=True, **options),
        cls(theirs.parameters(), **options),
    )
    x = torch.randn(20, 7)
    for _ in range(5):
        for net, optimizer in zip((ours, theirs), steps, strict=True):

            def closure(net=net, optimizer=optimizer):
                optimizer.zero_grad()
                loss = net(x).square().sum()
                loss.backward()
                return loss

            if with_closure:
                assert optimizer.step(closure) > 0
            else:
                closure()
                optimizer.step()
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(one, other)
    assert ours[0].weight.stride() == stride
    assert ours[0].weight.grad.shape == ours[0].weight.shape


def test_a_step_that_fails_leaves_parameters_in_their_shape(monkeypatch):
    layer = CountsLinear(7, 5)
    optimizer = ORDERED[torch.optim.Adam](layer.parameters(), fused=True)
    layer(torch.randn(4, 7)).sum().backward()
    monkeypatch.setattr(torch.optim.Adam, "step", lambda self: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        optimizer.step()
    assert layer.weight.shape == (5, 7)
    assert layer.weight.grad.shape == (5, 7)
