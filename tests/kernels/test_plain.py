"""The kernels against arbitrary precision, scvi-tools, and numerical derivatives."""

from __future__ import annotations

import itertools

import mpmath
import pytest
import torch
from scvi import distributions

from betavi.kernels import plain as kernels

EPS = mpmath.mpf("1e-8")
COUNTS = (0, 1, 2, 17, 1e3, 1e6)
MEANS = (1e-8, 1e-4, 0.3, 5.0, 1e3, 1e6)
THETAS = (1e-4, 0.1, 1.0, 50.0, 1e4, 1e8)
LOGITS = (-50.0, -10.0, -1.0, 0.0, 2.0, 20.0, 50.0)


def exact_nb(x, mu, theta):
    """scvi-tools' formula, in 60 digits."""
    total = mpmath.log(theta + mu + EPS)
    return (
        theta * (mpmath.log(theta + EPS) - total)
        + x * (mpmath.log(mu + EPS) - total)
        + mpmath.loggamma(x + theta)
        - mpmath.loggamma(theta)
        - mpmath.loggamma(x + 1)
    )


def exact_zinb(x, mu, theta, logits):
    softplus = mpmath.log1p(mpmath.exp(-logits))
    kept = exact_nb(x, mu, theta) - logits - softplus
    if x > 0:
        return kept
    return mpmath.log(mpmath.exp(-softplus) + mpmath.exp(kept))


def exact_poisson(x, rate):
    return x * mpmath.log(rate) - rate - mpmath.loggamma(x + 1)


KERNELS = {
    "nb": (kernels.nb_log_prob, exact_nb, (MEANS, THETAS)),
    "zinb": (kernels.zinb_log_prob, exact_zinb, (MEANS, THETAS, LOGITS)),
    "poisson": (kernels.poisson_log_prob, exact_poisson, (MEANS,)),
}
SCVI = {
    "nb": lambda mu, theta: distributions.NegativeBinomial(mu=mu, theta=theta),
    "zinb": lambda mu, theta, logits: distributions.ZeroInflatedNegativeBinomial(
        mu=mu, theta=theta, zi_logits=logits
    ),
    "poisson": lambda rate: distributions.Poisson(rate),
}


@pytest.fixture(params=[True, False], ids=["CPU", "GPU"], autouse=True)
def _device(request, monkeypatch):
    """Take the way of a CPU, and the one of a GPU, which asks for no size."""
    monkeypatch.setattr(kernels, "waits_for_sizes", lambda _: request.param)


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_extremes_agree_with_arbitrary_precision(name, dtype):
    kernel, exact, ranges = KERNELS[name]
    # the oracle sees the numbers that the tensors hold
    grid = torch.tensor(list(itertools.product(COUNTS, *ranges)), dtype=dtype)
    ours = kernel(*grid.t())
    with mpmath.workdps(60):
        truth = [float(exact(*(mpmath.mpf(v) for v in row))) for row in grid.tolist()]
    torch.testing.assert_close(
        ours.double(), torch.tensor(truth, dtype=torch.float64), rtol=1e-5, atol=1e-30
    )


@pytest.mark.parametrize("name", KERNELS)
def test_gradients_are_finite_at_extremes(name):
    kernel, _, ranges = KERNELS[name]
    x, *parameters = torch.tensor(list(itertools.product(COUNTS, *ranges))).t()
    parameters = [p.clone().requires_grad_() for p in parameters]
    kernel(x, *parameters).sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in parameters)


@pytest.mark.parametrize("name", KERNELS)
def test_gradients_agree_with_arbitrary_precision(name):
    """In single precision, where a difference of nearly equal numbers would show."""
    kernel, exact, ranges = KERNELS[name]
    thinned = [values[::2] for values in ranges]
    grid = torch.tensor(list(itertools.product((0, 2, 1e3), *thinned)))
    x, *parameters = grid.t()
    parameters = [p.clone().requires_grad_() for p in parameters]
    kernel(x, *parameters).sum().backward()
    for i, parameter in enumerate(parameters):
        with mpmath.workdps(60):
            truth = [
                float(
                    mpmath.diff(
                        lambda v, row=row, i=i: exact(
                            *(mpmath.mpf(u) if j != i + 1 else v for j, u in enumerate(row))
                        ),
                        mpmath.mpf(row[i + 1]),
                        h=mpmath.mpf(abs(row[i + 1]) or 1) * mpmath.mpf("1e-15"),
                    )
                )
                for row in grid.tolist()
            ]
        expected = torch.tensor(truth, dtype=torch.float64)
        # by theta, two terms cancel where it is far beyond the mean; by then neither matters
        atol = 1e-15 if i != 1 else 2e-8
        torch.testing.assert_close(parameter.grad.double(), expected, rtol=1e-4, atol=atol)


@pytest.mark.parametrize("name", KERNELS)
def test_values_and_gradients_are_those_of_scvi(name):
    kernel, _, ranges = KERNELS[name]
    torch.manual_seed(0)
    x = torch.poisson(torch.full((30, 50), 0.3)).double()
    parameters = [torch.rand(30, 50, dtype=torch.float64) + 0.1 for _ in ranges]
    ours = [p.clone().requires_grad_() for p in parameters]
    theirs = [p.clone().requires_grad_() for p in parameters]
    value = kernel(x, *ours)
    expected = SCVI[name](*theirs).log_prob(x)
    torch.testing.assert_close(value, expected, rtol=1e-10, atol=1e-12)
    value.sum().backward()
    expected.sum().backward()
    for p, q in zip(ours, theirs, strict=True):
        torch.testing.assert_close(p.grad, q.grad, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("name", KERNELS)
def test_gradients_are_exact(name):
    kernel, _, ranges = KERNELS[name]
    x = torch.tensor([0.0, 0, 1, 3, 0, 80], dtype=torch.float64)
    torch.manual_seed(0)
    # one parameter row for all cells, as a gene's dispersion is
    parameters = [(torch.rand(6, dtype=torch.float64) * 3).requires_grad_() for _ in ranges]
    assert torch.autograd.gradcheck(lambda *p: kernel(x.expand(2, 6), *p), parameters)


@pytest.mark.parametrize("logits", [-30.0, -4.0, 0.0, 4.0])
def test_gradient_of_a_near_certain_zero(logits):
    """The pole of log(1 + u): zeros that the counts can hardly explain."""
    parameters = [
        torch.tensor([value], dtype=torch.float64, requires_grad=True)
        for value in (50.0, 5.0, logits)
    ]
    x = torch.zeros(1, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda *p: kernels.zinb_log_prob(x, *p), parameters)


@pytest.mark.parametrize("name", KERNELS)
def test_special_functions_see_nonzeros_only(name, monkeypatch):
    monkeypatch.setattr(kernels, "waits_for_sizes", lambda _: True)
    kernel, _, ranges = KERNELS[name]
    seen = []
    for function in ("lgamma", "digamma"):
        original = getattr(torch, function)

        def counting(values, original=original):
            seen.append(values.numel())
            return original(values)

        monkeypatch.setattr(torch, function, counting)
    x = torch.zeros(10, 100)
    x[0, :7] = 3
    parameters = [torch.rand(10, 100, requires_grad=True) for _ in ranges]
    kernel(x, *parameters).sum().backward()
    assert seen
    assert set(seen) == {7}


@pytest.mark.parametrize("name", KERNELS)
def test_samples_broadcast(name):
    kernel, _, ranges = KERNELS[name]
    x = torch.poisson(torch.ones(4, 5))
    parameters = [torch.rand(3, 4, 5) + 0.1, *(torch.rand(5) + 0.1 for _ in ranges[1:])]
    whole = kernel(x, *parameters)
    assert whole.shape == (3, 4, 5)
    torch.testing.assert_close(whole[1], kernel(x, parameters[0][1], *parameters[1:]))
