"""Products by either library, beside double precision."""

from __future__ import annotations

import copy

import pytest
import torch

from betavi.kernels import layers
from betavi.kernels.layers import TransposedLinear, product

has_onednn = torch.backends.mkldnn.is_available()
LIBRARIES = {
    "PyTorch's": None,
    "oneDNN": torch.ops.mkldnn._linear_pointwise if has_onednn else None,
}


@pytest.fixture(params=LIBRARIES)
def library(request, monkeypatch):
    """Multiply with a library, also on processors on which it is not the faster one."""
    if request.param == "oneDNN" and not has_onednn:
        pytest.skip("this PyTorch was built without oneDNN")
    calls, chosen = [], LIBRARIES[request.param]

    def counted(*arguments):
        calls.append(arguments[0].shape)
        return chosen(*arguments)

    monkeypatch.setattr(layers, "_onednn_product", lambda: chosen and counted)
    return calls if chosen else None


def some(rows, columns, is_transposed):
    return torch.randn(columns, rows).t() if is_transposed else torch.randn(rows, columns)


@pytest.mark.parametrize("shape", [(5, 3, 4), (1, 1, 1), (128, 40, 300), (0, 3, 4), (3, 0, 2)])
@pytest.mark.parametrize("ways", [(False, False), (True, False), (False, True), (True, True)])
def test_a_product_is_one_whichever_way_its_factors_lie(library, shape, ways):
    n, k, m = shape
    a, b = some(n, k, ways[0]), some(k, m, ways[1])
    out = product(a, b)
    assert out.shape == (n, m)
    torch.testing.assert_close(out.double(), a.double() @ b.double(), rtol=1e-5, atol=1e-5)
    assert library is None or len(library) == (a.numel() > 0)


def test_factors_are_rounded_if_asked(library):
    a, b = torch.randn(20, 30), torch.randn(30, 10)
    rounded = product(a, b, torch.bfloat16)
    assert rounded.dtype == torch.float32
    exact = a.double() @ b.double()
    assert (rounded - exact).abs().max() > 10 * (product(a, b) - exact).abs().max()
    torch.testing.assert_close(rounded.double(), exact, rtol=0.05, atol=0.2)


def test_other_types_and_those_who_switched_it_off_have_pytorchs(library):
    a, b = torch.randn(4, 5), torch.randn(5, 6)
    torch.testing.assert_close(product(a.double(), b.double()), a.double() @ b.double())
    with torch.backends.mkldnn.flags(enabled=False):
        torch.testing.assert_close(product(a, b), a @ b)
    assert not library


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("shape", [(9, 7), (3, 9, 7)])
def test_a_transposed_layer_is_a_linear_layer(library, training, shape):
    torch.manual_seed(0)
    ours = TransposedLinear(7, 5).train(training)
    exact = copy.deepcopy(ours).double()
    x = torch.randn(shape, requires_grad=True)
    wide = x.detach().double().requires_grad_()
    expected = torch.nn.functional.linear(wide, exact.weight, exact.bias)
    with torch.no_grad():
        torch.testing.assert_close(ours(x).double(), expected, rtol=1e-5, atol=1e-6)
    if library is not None:
        assert len(library) == (len(shape) == 2)
    out = ours(x)
    out.square().sum().backward()
    expected.square().sum().backward()
    pairs = [(x, wide), *zip(ours.parameters(), exact.parameters(), strict=True)]
    for one, other in pairs:
        torch.testing.assert_close(one.grad.double(), other.grad, rtol=1e-5, atol=1e-5)
    # an optimiser in one pass over memory wants both to lie alike
    assert ours.weight.stride() == (1, 5)
    assert ours.weight.grad.stride() == (1, 5)


def test_a_layer_in_training_has_second_derivatives(library):
    layer = TransposedLinear(4, 3).double()
    x = torch.randn(5, 4, requires_grad=True)

    def penalty(layer, x):
        (slope,) = torch.autograd.grad(layer(x).pow(3).sum(), x, create_graph=True)
        return slope.square().sum()

    expected = torch.autograd.grad(penalty(layer, x.double()), layer.weight)[0]
    narrow = copy.deepcopy(layer).float()
    (grad,) = torch.autograd.grad(penalty(narrow, x), narrow.weight)
    torch.testing.assert_close(grad.double(), expected, rtol=1e-4, atol=1e-4)


def test_frozen_weights_cost_no_gradient(library):
    layer = TransposedLinear(4, 3).requires_grad_(False)
    layer.bias.requires_grad_(True)
    x = torch.randn(5, 4, requires_grad=True)
    layer(x).sum().backward()
    assert layer.weight.grad is None
    assert library is None or len(library) == 2
    torch.testing.assert_close(layer.bias.grad, torch.full((3,), 5.0))
    torch.testing.assert_close(x.grad, layer.weight.sum(dim=0).expand(5, -1))


def test_layers_lie_as_they_did_after_loading_and_copying():
    layer = TransposedLinear(7, 5)
    other = copy.deepcopy(TransposedLinear(7, 5))
    other.load_state_dict(layer.state_dict())
    assert other.weight.stride() == (1, 5)
    torch.testing.assert_close(other.weight, layer.weight)
