"""The contract of a fusion rule."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from torch.distributions import Normal

from betavi.objective import log_density

N_CELLS, N_LATENT = 6, 3


def experts(*names, n_cells=N_CELLS):
    torch.manual_seed(0)
    return {
        name: Normal(torch.randn(n_cells, N_LATENT), torch.rand(n_cells, N_LATENT) + 0.2)
        for name in names
    }


def check_fusion(cls):
    one_modality_makes_a_posterior_of_its_shape(cls)
    one_expert_pays_the_rate(cls)
    if cls.is_of_one:
        several_experts_are_refused(cls)
        return
    order_does_not_matter(cls)
    masked_is_omitted_even_if_it_is_nan(cls)
    of_five_modalities_any_may_be_missing(cls)
    a_cell_without_modalities_has_the_prior(cls)
    gradients_reach_every_expert_that_is_present(cls)
    the_penalty_of_several_is_finite(cls)


def one_modality_makes_a_posterior_of_its_shape(cls):
    q = cls()(experts("rna"), {})
    assert q.loc.shape == q.scale.shape == (N_CELLS, N_LATENT)
    assert (q.scale > 0).all()


def one_expert_pays_the_rate(cls):
    given, rate = experts("rna"), torch.rand(N_CELLS)
    q = cls()(given, {})
    torch.testing.assert_close(cls().penalty(rate, q, given, {}), rate)
    assert isinstance(cls().full_posterior(q), Normal)


def several_experts_are_refused(cls):
    with pytest.raises(ValueError, match="unpack"):
        cls()(experts("rna", "adt"), {})


def order_does_not_matter(cls):
    given = experts("rna", "adt", "atac")
    q, r = cls()(given, {}), cls()(dict(reversed(given.items())), {})
    torch.testing.assert_close((q.loc, q.scale), (r.loc, r.scale))


def masked_is_omitted_even_if_it_is_nan(cls):
    given = experts("rna", "adt")
    nan = torch.full((N_CELLS, N_LATENT), torch.nan)
    masked = given | {"adt": Normal(nan, nan, validate_args=False)}
    q = cls()(masked, {"adt": torch.zeros(N_CELLS, 1, dtype=torch.bool)})
    r = cls()({"rna": given["rna"]}, {})
    torch.testing.assert_close((q.loc, q.scale), (r.loc, r.scale))
    u = torch.randn(N_CELLS, N_LATENT)
    torch.testing.assert_close(log_density(q, u), log_density(r, u))


def of_five_modalities_any_may_be_missing(cls):
    """Every pattern of absence of five gives what the experts present give by themselves."""
    given = experts("a", "b", "c", "d", "e", n_cells=1)
    u = torch.randn(1, N_LATENT)
    for pattern in product((True, False), repeat=5):
        present = {key: torch.tensor([[here]]) for key, here in zip(given, pattern, strict=True)}
        left = {key: given[key] for key in given if present[key]} or {"a": Normal(u * 0, u * 0 + 1)}
        nothing = {"a": present["a"]} if not any(pattern) else {}
        q, r = cls()(given, present), cls()(left, nothing)
        torch.testing.assert_close(log_density(q, u), log_density(r, u))


def a_cell_without_modalities_has_the_prior(cls):
    q = cls()(experts("rna"), {"rna": torch.zeros(N_CELLS, 1, dtype=torch.bool)})
    prior = torch.zeros(N_CELLS, N_LATENT), torch.ones(N_CELLS, N_LATENT)
    torch.testing.assert_close((q.loc, q.scale), prior)


def gradients_reach_every_expert_that_is_present(cls):
    leaves = {key: torch.zeros(N_CELLS, N_LATENT, requires_grad=True) for key in ("rna", "adt")}
    given = {key: Normal(leaf, torch.ones(N_CELLS, N_LATENT)) for key, leaf in leaves.items()}
    here = torch.tensor([True, False] * 3)[:, None]
    cls()(given, {"adt": here}).mean.sum().backward()
    assert (leaves["rna"].grad != 0).all()
    torch.testing.assert_close(leaves["adt"].grad != 0, here.expand(N_CELLS, N_LATENT))


def the_penalty_of_several_is_finite(cls):
    given, here = experts("rna", "adt"), torch.tensor([True, False] * 3)[:, None]
    penalty = cls().penalty(torch.rand(N_CELLS), cls()(given, {"adt": here}), given, {"adt": here})
    assert penalty.shape == (N_CELLS,)
    assert torch.isfinite(penalty).all()
    full = cls().full_posterior(cls()(given, {"adt": here}))
    assert full is None or full.loc.shape == (N_CELLS, N_LATENT)
