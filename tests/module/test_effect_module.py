"""The module with effects: its output, its design, and the groups that effects are estimated from."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from betavi import EffectVI
from betavi.data.conditions import Conditions
from betavi.datasets import EffectDistribution, simulate_perturbations
from betavi.module.effects import DESIGN, EffectVAE
from betavi.nn.effects import BASE, DEVIATION, INTERACTION, MAIN, EffectHead

N_CELLS, N_GENES = 12, 10


def build(names=("A", "A+B", "B", "ctrl"), **kwargs):
    torch.manual_seed(0)
    conditions = Conditions.of_names(names, "ctrl")
    sizes = {"n_input": N_GENES, "n_batch": 1, "n_latent": 3, "n_hidden": 8}
    return EffectVAE(conditions, **(sizes | kwargs)).eval()


def minibatch(condition):
    torch.manual_seed(1)
    code = torch.zeros(N_CELLS, 1, dtype=torch.long)
    counts = torch.poisson(4 * torch.rand(N_CELLS, N_GENES) + 1)
    condition = torch.full_like(code, condition)
    return {"X": counts, "batch": code, "labels": code, "perturbation": condition}


@torch.no_grad()
def shares(module, tensors, z):
    """Return the expected shares of the genes at some latents."""
    inferred = module.inference(**module._get_inference_input(tensors))
    inferred["z"] = z
    generated = module.generative(**module._get_generative_input(tensors, inferred))
    mean = generated["px"]["X"].mean
    return mean / mean.sum(dim=-1, keepdim=True)


def test_effects_add_to_the_log_rates():
    module = build()
    z = torch.randn(N_CELLS, 3)
    before = shares(module, minibatch(3), z)
    effects = torch.randn(3, N_GENES)
    module.head.effects.copy_(effects)
    torch.testing.assert_close(shares(module, minibatch(3), z), before)
    # a pair has both effects and their interaction
    for condition, change in ((0, effects[0]), (2, effects[1]), (1, effects.sum(dim=0))):
        expected = torch.softmax(before.log() + change, dim=-1)
        found = shares(module, minibatch(condition), z)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("gene_likelihood", ["nb", "poisson", "zinb"])
def test_effects_are_not_trained_by_gradients(gene_likelihood):
    module = build(gene_likelihood=gene_likelihood).train()
    assert isinstance(module.head, EffectHead)
    *_, losses = module(minibatch(1))
    losses.loss.backward()
    assert not any("effects" in name for name, _ in module.named_parameters())
    assert module.head.state.weight.grad.abs().sum() > 0


def test_a_design_replaces_that_of_the_conditions():
    module = build()
    assert module.design(minibatch(1)).tolist() == [[1, 1, 1]] * N_CELLS
    own = torch.rand(N_CELLS, 3)
    torch.testing.assert_close(module.design(minibatch(1) | {DESIGN: own}), own)
    without = minibatch(1)
    del without["perturbation"]
    assert (module.design(without) == 0).all()


@pytest.mark.parametrize(
    ("kwargs", "match"),
    [({"gene_likelihood": "normal"}, "gene_likelihood must be one of"),
     ({"dispersion": "gene-cell"}, "dispersion='gene-cell' is not available")],
)  # fmt: skip
def test_models_without_log_rates_are_refused(kwargs, match):
    with pytest.raises(ValueError, match=match):
        build(**kwargs)


@pytest.fixture(scope="module")
def model():
    """A model with estimated effects that was not trained."""
    effects = EffectDistribution(share_affected=0.2, share_interacting=0.5, context_sd=0.3)
    adata = simulate_perturbations(
        3000,
        60,
        4,
        2,
        effects=effects,
        n_contexts=2,
        n_replicates=2,
        library_size=3000,
        state_sd=0.1,
    )
    EffectVI.setup_anndata(
        adata, perturbation_key="perturbation", context_key="context", replicate_key="replicate"
    )
    model = EffectVI(adata, n_latent=2, n_hidden=8)
    with torch.no_grad():
        model.module.start_effects(model.adata_manager, np.arange(adata.n_obs))
    return model


def test_estimated_effects_are_those_of_the_simulation(model):
    truth, estimate = model.adata.uns["truth"], model.module.stored_estimate()
    kinds, posterior = estimate.kinds, estimate.posterior
    contexts = list(model.conditions.contexts)
    singles = list(model.conditions.perturbations)
    main, deviation = posterior.mean[kinds == MAIN], posterior.mean[kinds == DEVIATION]
    deviation = deviation.reshape(len(contexts), len(singles), -1)
    # effects of both contexts and their mean are not separate, but their sums are
    for code, context in enumerate(contexts):
        expected = (truth["effects"] + truth["context_deviations"][context])[singles].T
        found = main + deviation[code]
        assert np.corrcoef(found.ravel(), expected.to_numpy().ravel())[0, 1] > 0.95
    interactions = truth["interactions"][model.conditions.pair_names].T.to_numpy()
    found = posterior.mean[kinds == INTERACTION]
    assert np.corrcoef(found.ravel(), interactions.ravel())[0, 1] > 0.9


def test_the_head_has_the_stored_effects(model):
    estimate = model.module.stored_estimate()
    found = model.module.head.effects.numpy()
    effects = estimate.posterior.mean[estimate.kinds != BASE]
    np.testing.assert_allclose(found, effects, rtol=1e-6, atol=1e-7)
    assert estimate.bases.shape == (2, estimate.n_base)
    np.testing.assert_allclose(np.exp(estimate.profile).sum(), 1)
    # base levels of a context are its own
    np.testing.assert_allclose(estimate.bases, [[1, 0], [1, 1]])


def test_stored_effects_are_loaded_with_the_weights(model):
    other = EffectVI(model.adata, n_latent=2, n_hidden=8)
    with pytest.raises(RuntimeError, match="effects were not estimated"):
        other.module.stored_estimate()
    other.module.load_state_dict(model.module.state_dict())
    first, second = model.module.stored_estimate(), other.module.stored_estimate()
    for name in ("mean", "rows", "weights", "precision", "shift", "noise"):
        np.testing.assert_array_equal(
            getattr(first.posterior, name), getattr(second.posterior, name)
        )
    columns = np.flatnonzero(first.kinds == MAIN)
    np.testing.assert_array_equal(
        first.posterior.unshrunk(columns), second.posterior.unshrunk(columns)
    )
    np.testing.assert_array_equal(first.posterior.prior.kinds, second.posterior.prior.kinds)


def test_some_cells_are_enough(model):
    other = EffectVI(model.adata, n_latent=2, n_hidden=8)
    # no cells of the second context
    cells = np.flatnonzero(model.adata.obs["context"] == "context_0")
    with torch.no_grad():
        other.module.start_effects(other.adata_manager, cells)
    estimate = other.module.stored_estimate()
    is_measured = estimate.posterior.is_estimated
    deviations = is_measured[estimate.kinds == DEVIATION].reshape(2, -1)
    # with one context, deviations are not separate from the effects
    assert deviations[0].all()
    assert not deviations[1].any()
    assert not estimate.is_determined(np.eye(len(estimate.kinds) - estimate.n_base)).all()
    assert is_measured[estimate.kinds == MAIN].all()
    assert np.isfinite(estimate.bases).all()
