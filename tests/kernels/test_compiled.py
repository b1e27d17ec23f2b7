"""The compiled path beside the plain one, in double precision: values and gradients."""

from __future__ import annotations

import itertools

import pytest
import torch

from betavi.kernels import compiled, head_nats, plain
from betavi.kernels.layers import CountsLinear, Heads
from betavi.kernels.sparse import compressed
from betavi.likelihoods import DISPERSIONS, LIKELIHOODS, DispersionSizes
from betavi.likelihoods._base import Deferred
from betavi.objective import distortion

COMPILED = [name for name, cls in LIKELIHOODS.items() if cls.rows is not None]
COUNTS = (0.0, 1.0, 2.0, 3.0, 4.0, 17.0, 25.0, 400.0, 2e4)
MEANS = (1e-8, 1e-4, 0.3, 5.0, 1e3, 1e6)
THETAS = (1e-4, 0.1, 1.0, 50.0, 1e4)
LOGITS = (-50.0, -10.0, -1.0, 0.0, 2.0, 20.0, 50.0)

members = pytest.mark.parametrize("name", COMPILED)


def some_counts(n_cells, n_genes, share=0.3):
    rate = torch.full((n_cells, n_genes), 3.0)
    return torch.poisson(rate) * (torch.rand(n_cells, n_genes) < share)


@members
@pytest.mark.parametrize("dispersion", DISPERSIONS)
@pytest.mark.parametrize("samples", [(), (3,)])
@pytest.mark.parametrize("n_genes", [5, 300])
def test_is_the_plain_path(name, dispersion, samples, n_genes):
    torch.manual_seed(0)
    sizes = DispersionSizes(n_batch=2, n_labels=3)
    n_cells, n_hidden = 20, 8
    fast = LIKELIHOODS[name](n_hidden, n_genes, "softmax", dispersion, sizes)
    with torch.no_grad():
        for parameter in fast.parameters():
            parameter.add_(0.5 * torch.randn_like(parameter))
    slow = LIKELIHOODS[name](n_hidden, n_genes, "softmax", dispersion, sizes).double()
    slow.load_state_dict(fast.state_dict())
    h = torch.randn(*samples, n_cells, n_hidden, requires_grad=True)
    log_size = torch.randn(*samples, n_cells, 1).add(4).requires_grad_()
    codes = torch.arange(n_cells)[:, None]
    x, weights = some_counts(n_cells, n_genes), torch.rand(*samples, n_cells)

    wide = [part.detach().double().requires_grad_() for part in (h, log_size)]
    deferred = fast(h, log_size, codes % 2, codes % 3)
    assert isinstance(deferred, Deferred)
    px = slow(*wide, codes % 2, codes % 3)
    assert not isinstance(px, Deferred)
    nats, expected = distortion(deferred, x.to_sparse_csr()), distortion(px, x.double())
    assert nats.shape == (*samples, n_cells)
    torch.testing.assert_close(nats.double(), expected, rtol=2e-6, atol=1e-5)
    (weights * nats).sum().backward()
    (weights.double() * expected).sum().backward()
    for (key, part), (_, other) in zip(
        fast.named_parameters(), slow.named_parameters(), strict=True
    ):
        scale = other.grad.abs().max().item()
        torch.testing.assert_close(
            part.grad.double(), other.grad, rtol=2e-5, atol=4e-6 * scale, msg=key
        )
    for part, other in zip((h, log_size), wide, strict=True):
        scale = other.grad.abs().max().item()
        torch.testing.assert_close(part.grad.double(), other.grad, rtol=2e-5, atol=4e-6 * scale)
    # whatever else is asked of it is what the distribution says
    torch.testing.assert_close(deferred.mean.double(), px.mean, rtol=1e-4, atol=1e-6)


def grid(name):
    """Every combination, one for each cell, of one gene, whose mean is the cell's size."""
    axes = [COUNTS, MEANS]
    if LIKELIHOODS[name].has_dispersion:
        axes.append(THETAS)
    if name == "zinb":
        axes.append(LOGITS)
    columns = [
        torch.tensor(column)[:, None] for column in zip(*itertools.product(*axes), strict=True)
    ]
    return columns + [None] * (4 - len(columns))


@members
def test_every_corner(name):
    counts, means, thetas, logits = grid(name)
    h = torch.zeros_like(counts) if logits is None else logits
    leaves = {"h": h.clone(), "log_size": means.log()}
    if thetas is not None:
        leaves["log_theta"] = thetas.log()
    leaves = {key: leaf.requires_grad_() for key, leaf in leaves.items()}
    flat, through = torch.nn.Linear(1, 1), torch.nn.Linear(1, 1)
    with torch.no_grad():
        for part, weight in ((flat, 0.0), (through, 1.0)):
            part.weight.fill_(weight)
            part.bias.zero_()
    layers = (flat,) if logits is None else (flat, through)
    heads = Heads(getattr(compiled, f"{name}_rows"), layers, leaves.get("log_theta"))
    nats = head_nats(heads, counts.to_sparse_csr(), leaves["h"], leaves["log_size"])
    nats.sum().backward()

    wide = {key: leaf.detach().double().requires_grad_() for key, leaf in leaves.items()}
    parameters = [wide["log_size"].exp()]
    parameters += [wide["log_theta"].exp()] if thetas is not None else []
    parameters += [wide["h"]] if logits is not None else []
    log_prob = getattr(plain, f"{name}_log_prob")
    expected = -log_prob(counts.double(), *parameters)
    expected.sum().backward()
    # single precision cannot know a mean of a million better than to a sixteenth
    size = (counts + means).squeeze(1).double()
    error = (nats.double() - expected.squeeze(1)).abs()
    assert (error <= 2e-6 * expected.squeeze(1).abs() + 4e-7 * size + 2e-6).all()
    for key, leaf in leaves.items():
        exact = wide[key].grad
        if exact is None:
            continue
        error = (leaf.grad.double() - exact).abs().squeeze(1)
        assert (error <= 2e-5 * exact.abs().squeeze(1) + 4e-7 * size + 1e-6).all(), key


@members
@pytest.mark.parametrize("kind", ["dense", "stored zeros", "long indices", "half counts"])
def test_reads_counts_however_they_are_held(name, kind):
    torch.manual_seed(0)
    likelihood = LIKELIHOODS[name](4, 30, "softmax", "gene", DispersionSizes(1, 1))
    h, log_size, codes = torch.randn(9, 4), torch.full((9, 1), 3.0), torch.zeros(9, 1).long()
    x = some_counts(9, 30)
    held = x
    if kind == "stored zeros":
        held = (x + 1).to_sparse_csr()
        held = compressed(held.crow_indices(), held.col_indices(), held.values() - 1, x.shape)
    elif kind == "long indices":
        held = x.to_sparse_csr()
    elif kind == "half counts":
        held = x = x / 2
    nats = distortion(likelihood(h, log_size, codes, codes), held)
    expected = distortion(likelihood.eval()(h, log_size, codes, codes), x)
    torch.testing.assert_close(nats, expected, rtol=5e-6, atol=1e-5)


def test_first_layer_reads_compressed_counts():
    torch.manual_seed(0)
    layer = CountsLinear(50, 16)
    x = some_counts(12, 50).log1p()
    results = []
    for held in (x, x.to_sparse_csr()):
        layer.zero_grad()
        out = layer(held)
        (out.square()).sum().backward()
        results.append((out, layer.weight.grad.clone(), layer.bias.grad.clone()))
    for slow, fast in zip(*results, strict=True):
        torch.testing.assert_close(fast, slow, rtol=1e-5, atol=1e-5)
    assert results[1][1].stride() == layer.weight.stride()


@members
def test_frozen_layers_cost_no_gradient(monkeypatch, name):
    """As those of a model that was trained, and is adapted to a query."""
    sizes = DispersionSizes(n_batch=1, n_labels=1)
    likelihood = LIKELIHOODS[name](4, 40, "softmax", "gene", sizes)
    x, codes = some_counts(3, 40), torch.zeros(3, 1, dtype=torch.long)
    slopes = []
    for frozen in (False, True):
        likelihood.requires_grad_(not frozen)
        h = torch.ones(3, 4, requires_grad=True)
        distortion(likelihood(h, torch.ones(3, 1), codes, codes), x).sum().backward()
        slopes.append(h.grad)
        if not frozen:
            likelihood.zero_grad()
    torch.testing.assert_close(*slopes)
    assert all(parameter.grad is None for parameter in likelihood.parameters())


@members
def test_without_the_compiler_the_plain_path_is_taken(monkeypatch, name):
    monkeypatch.setattr("betavi.likelihoods._base.compiled", None)
    likelihood = LIKELIHOODS[name](4, 6, "softmax", "gene", DispersionSizes(1, 1))
    codes = torch.zeros(2, 1).long()
    px = likelihood(torch.randn(2, 4), torch.ones(2, 1), codes, codes)
    assert not isinstance(px, Deferred)
    assert torch.isfinite(distortion(px, torch.ones(2, 6).to_sparse_csr())).all()


@members
@pytest.mark.parametrize("value", [float("nan"), -float("nan"), float("inf")])
def test_what_has_diverged_is_no_number(name, value):
    """As by the plain path, and of the cell alone."""
    sizes = DispersionSizes(n_batch=1, n_labels=1)
    likelihood = LIKELIHOODS[name](4, 40, "softmax", "gene", sizes)
    x, codes = some_counts(3, 40), torch.zeros(3, 1, dtype=torch.long)
    h = torch.randn(3, 4)
    h[0] = value
    h.requires_grad_()
    nats = distortion(likelihood(h, torch.ones(3, 1), codes, None), x.to_sparse_csr())
    assert nats.isfinite().tolist() == [False, True, True]
    nats.sum().backward()
    assert h.grad.isfinite().all(dim=1).tolist() == [False, True, True]
    assert not likelihood.unscaled.weight.grad.isfinite().all()


@members
def test_a_share_of_zero_is_a_number(name):
    sizes = DispersionSizes(n_batch=1, n_labels=1)
    likelihood = LIKELIHOODS[name](4, 40, "softmax", "gene", sizes)
    with torch.no_grad():
        likelihood.unscaled.bias[7] = -float("inf")
    x, codes = torch.zeros(3, 40), torch.zeros(3, 1, dtype=torch.long)
    nats = distortion(likelihood(torch.randn(3, 4), torch.ones(3, 1), codes, None), x)
    assert nats.isfinite().all()
