"""One contract for every fusion rule in the table."""

from __future__ import annotations

import pytest
import torch
from torch.distributions import Normal

from betavi.nn import FUSIONS

several = pytest.mark.parametrize("name", [name for name in FUSIONS if name != "single"])


def experts(*names, n_cells=6, n_latent=3):
    torch.manual_seed(0)
    return {
        name: Normal(torch.randn(n_cells, n_latent), torch.rand(n_cells, n_latent) + 0.2)
        for name in names
    }


@pytest.mark.parametrize("name", FUSIONS)
def test_one_modality_makes_a_posterior_of_its_shape(name):
    q = FUSIONS[name]()(experts("rna"), {})
    assert q.loc.shape == q.scale.shape == (6, 3)
    assert (q.scale > 0).all()


def test_a_single_expert_is_the_posterior():
    given = experts("rna")
    assert FUSIONS["single"]()(given, {}) is given["rna"]


@several
def test_order_does_not_matter(name):
    given = experts("rna", "adt", "atac")
    q = FUSIONS[name]()(given, {})
    r = FUSIONS[name]()(dict(reversed(given.items())), {})
    torch.testing.assert_close((q.loc, q.scale), (r.loc, r.scale))


@several
def test_masked_is_omitted_even_if_it_is_nan(name):
    given = experts("rna", "adt")
    nan = torch.full((6, 3), torch.nan)
    masked = given | {"adt": Normal(nan, nan, validate_args=False)}
    q = FUSIONS[name]()(masked, {"adt": torch.zeros(6, 1, dtype=torch.bool)})
    r = FUSIONS[name]()({"rna": given["rna"]}, {})
    torch.testing.assert_close((q.loc, q.scale), (r.loc, r.scale), rtol=0, atol=0)


@several
def test_a_cell_without_modalities_has_the_prior(name):
    nowhere = {"rna": torch.zeros(6, 1, dtype=torch.bool)}
    q = FUSIONS[name]()(experts("rna"), nowhere)
    torch.testing.assert_close((q.loc, q.scale), (torch.zeros(6, 3), torch.ones(6, 3)))


@several
def test_gradients_reach_every_expert_that_is_present(name):
    leaves = {key: torch.zeros(6, 3, requires_grad=True) for key in ("rna", "adt")}
    given = {key: Normal(leaf, torch.ones(6, 3)) for key, leaf in leaves.items()}
    here = torch.tensor([True, False] * 3)[:, None]
    FUSIONS[name]()(given, {"adt": here}).loc.sum().backward()
    assert (leaves["rna"].grad != 0).all()
    torch.testing.assert_close(leaves["adt"].grad != 0, here.expand(6, 3))


def test_product_of_experts_is_the_normalised_product_of_densities():
    """Numerical integration of prior times experts in one dimension."""
    given = {
        "rna": Normal(torch.tensor([[0.7]]), torch.tensor([[0.5]])),
        "adt": Normal(torch.tensor([[-1.2]]), torch.tensor([[1.3]])),
    }
    q = FUSIONS["poe"]()(given, {})
    grid = torch.linspace(-12, 12, 200_001, dtype=torch.float64)
    log_density = Normal(0.0, 1.0).log_prob(grid)
    for expert in given.values():
        log_density = log_density + expert.log_prob(grid).squeeze()
    weight = log_density.softmax(dim=0)
    mean = (weight * grid).sum()
    deviation = (weight * (grid - mean).square()).sum().sqrt()
    torch.testing.assert_close(q.loc.double().squeeze(), mean, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(q.scale.double().squeeze(), deviation, rtol=1e-5, atol=1e-6)
