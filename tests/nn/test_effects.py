"""The design of effects by hand, and an output layer that adds effects."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.functional import linear

from betavi.data.conditions import Conditions
from betavi.kernels.layers import TransposedLinear
from betavi.nn.effects import (
    DEVIATION,
    INTERACTION,
    MAIN,
    EffectDesign,
    EffectHead,
    EffectStatistics,
)

NAMES = ["A", "A+B", "B", "B+C+A", "ctrl"]


def design_of(names=NAMES, **kwargs):
    return EffectDesign(Conditions.of_names(names, "ctrl", **kwargs))


def test_rows_have_perturbations_and_products_of_pairs():
    design = design_of()
    assert design.kinds.tolist() == [MAIN] * 3 + [INTERACTION] * 3
    found = design(torch.arange(5))
    # pairs are AB, AC and BC
    assert found.tolist() == [
        [1, 0, 0, 0, 0, 0], [1, 1, 0, 1, 0, 0], [0, 1, 0, 0, 0, 0],
        [1, 1, 1, 1, 1, 1], [0, 0, 0, 0, 0, 0],
    ]  # fmt: skip


def test_the_order_of_names_does_not_matter():
    design = design_of(["A+B", "B+A", "A+B+ctrl", "ctrl"])
    found = design(torch.arange(3))
    assert (found == found[0]).all()


def test_each_context_has_deviations():
    design = design_of(["A", "B", "ctrl"], contexts=("x", "y"))
    assert design.kinds.tolist() == [MAIN] * 2 + [DEVIATION] * 4
    found = design(torch.tensor([0, 0, 1, 2]), context=torch.tensor([0, 1, 1, 1]))
    # deviations of A and B in x, then of A and B in y
    assert found.tolist() == [
        [1, 0, 1, 0, 0, 0], [1, 0, 0, 0, 1, 0], [0, 1, 0, 0, 0, 1], [0, 0, 0, 0, 0, 0],
    ]  # fmt: skip


def test_effects_are_full_at_every_dose_until_curves_are_set():
    design = design_of(doses=[0.0, 0.1, 10.0])
    condition, dose = torch.tensor([0, 0, 1, 4, 4, 0]), torch.tensor([1, 2, 1, 2, 0, 0])
    found = design(condition, dose)
    assert found[:3, :2].tolist() == [[1, 0], [1, 0], [1, 1]]
    # controls, and a dose of 0
    assert (found[3:] == 0).all()
    assert not found.isnan().any()


def test_the_effect_is_half_at_the_ec50_and_follows_the_hill_curve():
    doses = [0.0, 1.0, 4.0, "1+4", "4+1"]
    design = design_of(["A", "A+B", "B", "B+A", "ctrl"], doses=doses)
    design.log_ec50.copy_(torch.tensor([1.0, 4.0]).log())
    design.slope.copy_(torch.tensor([2.0, 1.0]))
    condition, dose = torch.tensor([0, 0, 2, 1, 3, 3]), torch.tensor([1, 2, 2, 3, 3, 4])
    found = design(condition, dose)

    def hill(dose, ec50, slope):
        return dose**slope / (dose**slope + ec50**slope)

    expected = [
        [0.5, 0], [hill(4, 1, 2), 0], [0, 0.5], [0.5, 0.5],
        # the doses of B+A are those of B, then of A
        [hill(4, 1, 2), hill(1, 4, 1)], [0.5, 0.5],
    ]  # fmt: skip
    torch.testing.assert_close(found[:, :2], torch.tensor(expected))
    torch.testing.assert_close(found[:, 2], found[:, 0] * found[:, 1])


def test_a_design_moves_and_is_saved_with_its_curves():
    design = design_of(doses=[0.0, 1.0])
    design.log_ec50.fill_(0.3)
    design.slope.fill_(2.0)
    assert set(design.state_dict()) == {"log_ec50", "slope"}
    other = design_of(doses=[0.0, 1.0])
    other.load_state_dict(design.state_dict())
    codes = torch.tensor([0, 1]), torch.tensor([1, 1])
    torch.testing.assert_close(other(*codes), design(*codes))


@pytest.fixture
def head():
    head = EffectHead(TransposedLinear(4, 6), n_columns=3)
    head.effects.copy_(torch.randn(3, 6))
    return head


@pytest.mark.parametrize("shape", [(5,), (2, 5), (1,)])
def test_a_head_is_a_linear_layer_plus_effects(head, shape):
    h, design = torch.randn(*shape, 4), torch.rand(*shape, 3)
    expected = linear(h, head.state.weight, head.state.bias) + design @ head.effects
    torch.testing.assert_close(head(torch.cat([h, design], dim=-1)), expected)
    # kernels read the weight and the bias
    torch.testing.assert_close(
        linear(torch.cat([h, design], dim=-1), head.weight, head.bias), expected
    )
    assert head.weight.shape == (6, 7)


def test_without_effects_a_head_is_its_layer(head):
    head.effects.zero_()
    h = torch.randn(5, 4)
    torch.testing.assert_close(head(torch.cat([h, torch.rand(5, 3)], dim=1)), head.state(h))


def test_gradients_reach_the_layer_and_the_input_only(head):
    assert {name for name, _ in head.named_parameters()} == {"state.weight", "state.bias"}
    x = torch.randn(5, 7, requires_grad=True)
    head(x).square().sum().backward()
    assert head.effects.grad is None
    assert head.state.weight.grad.abs().sum() > 0
    plain = torch.nn.Linear(4, 6)
    plain.load_state_dict(head.state.state_dict())
    output = plain(x[:, :4].detach()) + x[:, 4:].detach() @ head.effects
    output.square().sum().backward()
    torch.testing.assert_close(head.state.weight.grad, plain.weight.grad)
    torch.testing.assert_close(head.state.bias.grad, plain.bias.grad)


def test_effects_of_double_precision_are_converted(head):
    head.effects = head.effects.double()
    assert head(torch.randn(2, 7)).dtype == torch.float32


def test_statistics_of_other_sizes_are_loaded():
    stored = EffectStatistics()
    stored.store({"rows": torch.rand(2, 3), "kinds": torch.tensor([0, 1]), "noise": torch.rand(4)})
    empty, other = EffectStatistics(), EffectStatistics()
    other.store({"rows": torch.zeros(7, 1)})
    for target in (empty, other):
        target.load_state_dict(stored.state_dict())
        for name in ("rows", "kinds", "noise"):
            assert torch.equal(target.get(name), stored.get(name))
            assert target.get(name).dtype == stored.get(name).dtype


def test_statistics_inside_a_module_are_loaded_in_place_of_others():
    class Outer(torch.nn.Module):
        def __init__(self, **arrays):
            super().__init__()
            self.layer = torch.nn.Linear(2, 2)
            self.effect_statistics = EffectStatistics()
            self.effect_statistics.store(arrays)

    first, second = Outer(rows=torch.rand(2, 3)), Outer(rows=torch.rand(5), noise=torch.rand(1))
    second.load_state_dict(first.state_dict())
    assert torch.equal(second.effect_statistics.get("rows"), first.effect_statistics.get("rows"))
    # arrays that the file does not have belong to an earlier estimate
    with pytest.raises(KeyError, match="noise"):
        second.effect_statistics.get("noise")
    second.load_state_dict(Outer().state_dict())
    assert not second.effect_statistics.state_dict()


def test_statistics_do_not_share_memory_with_the_file():
    first, second = EffectStatistics(), EffectStatistics()
    first.store({"rows": torch.zeros(3)})
    second.load_state_dict(first.state_dict())
    second.get("rows").fill_(1)
    assert (first.get("rows") == 0).all()
    assert np.isfinite(second.get("rows").numpy()).all()


def test_without_statistics_there_is_an_error():
    with pytest.raises(KeyError, match="rows"):
        EffectStatistics().get("rows")
