"""Steps in memory order are the steps that PyTorch takes."""

from __future__ import annotations

import copy

import pytest
import torch

from betavi.kernels.layers import CountsLinear
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


def two_of(cls):
    """The same layers, with an optimiser of ours and one of PyTorch's."""
    ours = torch.nn.Sequential(CountsLinear(7, 5), torch.nn.Linear(5, 3))
    theirs = copy.deepcopy(ours)
    options = {"lr": 0.1, "eps": 0.01}
    return (ours, ORDERED[cls](ours.parameters(), fused=True, **options)), (
        theirs,
        cls(theirs.parameters(), **options),
    )


def steps(net, optimizer, x, n_steps=3):
    for _ in range(n_steps):
        optimizer.zero_grad()
        net(x).square().sum().backward()
        optimizer.step()


@pytest.mark.parametrize("cls", ORDERED)
def test_what_is_kept_has_the_shape_of_the_parameters_and_goes_to_either(cls):
    (ours, ordered), (theirs, usual) = two_of(cls)
    x = torch.randn(20, 7)
    steps(ours, ordered, x)
    steps(theirs, usual, x)
    assert ordered.state[ours[0].weight]["exp_avg"].shape == ours[0].weight.shape
    one, other = copy.deepcopy(ordered.state_dict()), copy.deepcopy(usual.state_dict())
    for group in (*one["param_groups"], *other["param_groups"]):
        group.pop("fused")
    ordered.load_state_dict(
        other | {"param_groups": [g | {"fused": True} for g in other["param_groups"]]}
    )
    usual.load_state_dict(
        one | {"param_groups": [g | {"fused": None} for g in one["param_groups"]]}
    )
    steps(ours, ordered, x)
    steps(theirs, usual, x)
    for mine, its in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine, its)


@pytest.mark.parametrize("cls", ORDERED)
def test_hooks_run_once_a_step(cls):
    # PyTorch wraps the step of a class when the first of it is made
    cls([torch.nn.Parameter(torch.ones(1))])
    (net, optimizer), _ = two_of(cls)
    seen = []
    optimizer.register_step_pre_hook(lambda *_: seen.append("before"))
    optimizer.register_step_post_hook(lambda *_: seen.append("after"))
    steps(net, optimizer, torch.randn(4, 7), n_steps=2)
    assert seen == ["before", "after"] * 2


def test_a_step_that_fails_leaves_parameters_in_their_shape(monkeypatch):
    layer = CountsLinear(7, 5)
    optimizer = ORDERED[torch.optim.Adam](layer.parameters(), fused=True)
    layer(torch.randn(4, 7)).sum().backward()
    monkeypatch.setattr(torch.optim.Adam, "step", lambda self: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        optimizer.step()
    assert layer.weight.shape == (5, 7)
    assert layer.weight.grad.shape == (5, 7)
