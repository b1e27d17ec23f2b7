"""The module against SCVI's, its own parts, and Monte Carlo."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scvi.module import VAE
from torch.distributions import Normal

from betavi.likelihoods import DISPERSIONS, LIKELIHOODS
from betavi.module import BetaVAE, CovariateSizes, Modality, MultimodalVAE, Options
from betavi.nn import LATENTS, Architecture

N_CELLS, N_GENES, N_BATCH, N_LABELS = 16, 20, 3, 2


def minibatch():
    torch.manual_seed(0)
    return {
        "X": torch.poisson(torch.rand(N_CELLS, N_GENES) * 3),
        "batch": torch.arange(N_CELLS)[:, None] % N_BATCH,
        "labels": torch.arange(N_CELLS)[:, None] % N_LABELS,
        "extra_continuous_covs": torch.randn(N_CELLS, 2),
        "extra_categorical_covs": torch.randint(0, 4, (N_CELLS, 1)),
    }


def build(cls=BetaVAE, **kwargs):
    torch.manual_seed(1)
    sizes = {"n_batch": N_BATCH, "n_labels": N_LABELS, "n_continuous_cov": 2}
    return cls(N_GENES, n_cats_per_cov=[4], n_latent=3, n_hidden=8, **(sizes | kwargs))


def library_prior():
    return {
        "use_observed_lib_size": False,
        "library_log_means": np.full((1, N_BATCH), 2.0),
        "library_log_vars": np.full((1, N_BATCH), 0.5),
    }


RENAMED = (
    ("z_encoder.mean_encoder", "z_encoders.X.mean"),
    ("z_encoder.var_encoder", "z_encoders.X.variance"),
    ("z_encoder.encoder", "z_encoders.X.encoder"),
    ("l_encoder.mean_encoder", "l_encoder.X.encoder.mean"),
    ("l_encoder.var_encoder", "l_encoder.X.encoder.variance"),
    ("l_encoder.encoder", "l_encoder.X.encoder.encoder"),
    ("library_", "l_encoder.X."),
    ("decoder.px_decoder", "decoders.X.px_decoder"),
    ("decoder.px_scale_decoder.0", "likelihoods.X.unscaled"),
    ("decoder.px_dropout_decoder", "likelihoods.X.dropout"),
    ("decoder.px_r_decoder", "likelihoods.X.dispersion.log_theta"),
    ("px_r", "likelihoods.X.dispersion.log_theta"),
)


def copy_weights(theirs, ours):
    """Give our module SCVI's weights; what ours has no use for is left."""
    wanted = ours.state_dict()
    # what says how training went, and is no weight
    given = {
        key: wanted[key]
        for key in wanted
        if key.startswith(("controller.", "trained_beta", "held_rate"))
    }
    given["is_fresh"] = torch.tensor(False)
    for key, value in theirs.state_dict().items():
        new = next((b + key.removeprefix(a) for a, b in RENAMED if key.startswith(a)), key)
        if new in wanted:
            given[new] = value
    ours.load_state_dict(given)


@pytest.mark.parametrize("gene_likelihood", ["zinb", "nb", "poisson", "normal"])
@pytest.mark.parametrize("dispersion", DISPERSIONS)
@pytest.mark.parametrize(
    "kwargs",
    [
        {},
        {"encode_covariates": True, "n_layers": 2},
        {"batch_representation": "embedding", "encode_covariates": True},
        {"use_size_factor_key": True},
        {"latent_distribution": "ln", "use_layer_norm": "both", "use_batch_norm": "none"},
        library_prior(),
    ],
    ids=lambda kwargs: "-".join(map(str, kwargs)) or "defaults",
)
def test_loss_is_that_of_scvi_with_the_same_weights(gene_likelihood, dispersion, kwargs):
    kwargs = {"gene_likelihood": gene_likelihood, "dispersion": dispersion, **kwargs}
    theirs, ours = build(VAE, **kwargs).eval(), build(**kwargs).eval()
    copy_weights(theirs, ours)
    tensors = minibatch()
    if kwargs.get("use_size_factor_key"):
        tensors["size_factor"] = torch.rand(N_CELLS, 1) + 0.5
    outputs = []
    for module in (theirs, ours):
        torch.manual_seed(2)
        outputs.append(module(tensors, loss_kwargs={"kl_weight": 0.3})[2])
    for name in ("loss", "reconstruction_loss_sum", "kl_local_sum"):
        torch.testing.assert_close(
            getattr(outputs[1], name), getattr(outputs[0], name), rtol=1e-4, atol=1e-4
        )


@pytest.mark.parametrize("gene_likelihood", LIKELIHOODS)
@pytest.mark.parametrize("latent_distribution", LATENTS)
@pytest.mark.parametrize("batch_representation", ["one-hot", "embedding"])
def test_every_combination_has_gradients(
    gene_likelihood, latent_distribution, batch_representation
):
    module = build(
        gene_likelihood=gene_likelihood,
        latent_distribution=latent_distribution,
        batch_representation=batch_representation,
        encode_covariates=True,
        **library_prior(),
    )
    *_, losses = module(minibatch())
    assert losses.reconstruction_loss["reconstruction_loss"].shape == (N_CELLS,)
    losses.loss.backward()
    # a point has no variance to learn
    idle = "z_encoders.X.variance" if latent_distribution == "deterministic" else "nothing"
    for key, parameter in module.named_parameters():
        if not key.startswith(idle):
            assert torch.isfinite(parameter.grad).all(), key


def test_loss_weighs_the_rate_of_z_and_records_it_unweighted():
    module = build(**library_prior()).eval()
    losses = {}
    for weight in (0.0, 1.0, 4.0):
        torch.manual_seed(0)
        losses[weight] = module(minibatch(), loss_kwargs={"kl_weight": weight})[2]
    rates = losses[4.0].kl_local
    assert (rates["kl_divergence_z"] == losses[0.0].kl_local["kl_divergence_z"]).all()
    assert (rates["kl_divergence_l"] > 0).any()
    mean_rate = rates["kl_divergence_z"].mean()
    for weight in (1.0, 4.0):
        gained = losses[weight].loss - losses[0.0].loss
        torch.testing.assert_close(gained, weight * mean_rate, rtol=1e-3, atol=1e-4)
    per_cell = losses[1.0].reconstruction_loss["reconstruction_loss"] + sum(rates.values())
    torch.testing.assert_close(losses[1.0].loss, per_cell.mean())


@pytest.mark.parametrize("n_samples", [1, 5])
def test_samples_come_along_a_new_axis(n_samples):
    module = build(batch_representation="embedding", **library_prior()).eval()
    inferred, generated = module(
        minibatch(), inference_kwargs={"n_samples": n_samples}, compute_loss=False
    )
    lead = () if n_samples == 1 else (n_samples,)
    assert inferred["z"].shape == (*lead, N_CELLS, 3)
    assert inferred["library"]["X"].shape == (*lead, N_CELLS, 1)
    assert generated["px"]["X"].mean.shape == (*lead, N_CELLS, N_GENES)
    tail = () if n_samples == 1 else (n_samples,)
    assert module.sample(minibatch(), n_samples=n_samples)["X"].shape == (N_CELLS, N_GENES, *tail)


def test_transform_batch_decodes_as_another_batch():
    module = build(dispersion="gene-batch").eval()
    tensors = minibatch()
    inferred = module.inference(**module._get_inference_input(tensors))
    given = module._get_generative_input(tensors, inferred)
    moved = module.generative(**given, transform_batch=2)["px"]["X"]
    there = given | {"batch_index": torch.full((N_CELLS, 1), 2)}
    torch.testing.assert_close(moved.mean, module.generative(**there)["px"]["X"].mean)
    torch.testing.assert_close(moved.theta, module.generative(**there)["px"]["X"].theta)


@pytest.mark.slow
@pytest.mark.parametrize("latent_distribution", ["normal", "ln"])
def test_marginal_likelihood_agrees_with_numerical_integration(latent_distribution):
    """One latent dimension: the integral over z on a grid."""
    torch.manual_seed(1)
    module = BetaVAE(N_GENES, n_batch=1, n_latent=1, n_hidden=8).eval()
    module.latent = LATENTS[latent_distribution]()
    tensors = {
        "X": minibatch()["X"],
        "batch": torch.zeros(N_CELLS, 1, dtype=torch.long),
        "labels": torch.zeros(N_CELLS, 1, dtype=torch.long),
    }
    grid = torch.linspace(-8, 8, 4001)
    u = grid[:, None, None].expand(-1, N_CELLS, 1)
    library = tensors["X"].sum(dim=1, keepdim=True).log().expand(len(grid), -1, -1)
    with torch.no_grad():
        px = module.generative(module.latent.transform(u), {"X": library}, tensors["batch"])["px"][
            "X"
        ]
        log_joint = px.log_prob(tensors["X"]).sum(-1) + Normal(0.0, 1.0).log_prob(grid)[:, None]
    exact = log_joint.double().logsumexp(dim=0) + (grid[1] - grid[0]).log()
    # 5 does not divide 1001: the last pass is shorter
    estimate = module.marginal_ll(tensors, n_mc_samples=1001, n_mc_samples_per_pass=5)
    torch.testing.assert_close(estimate.double(), exact, rtol=0, atol=0.1)


@pytest.mark.slow
def test_marginal_likelihood_bounds_the_elbo_also_with_a_latent_library():
    module = build(**library_prior()).eval()
    tensors = minibatch()
    elbos = [-module(tensors)[2].loss for _ in range(50)]
    tighter = module.marginal_ll(tensors, n_mc_samples=500, return_mean=True)
    assert tighter > torch.stack(elbos).mean()


def test_a_deterministic_module_has_no_marginal_likelihood():
    module = build(latent_distribution="deterministic").eval()
    with pytest.raises(ValueError, match="no marginal likelihood"):
        module.marginal_ll(minibatch(), n_mc_samples=2)


def test_an_empty_cell_costs_nothing_and_does_no_harm():
    module = build(**library_prior())
    tensors = minibatch()
    tensors["X"][3] = 0
    *_, losses = module(tensors)
    losses.loss.backward()
    assert all(torch.isfinite(p.grad).all() for p in module.parameters())
    observed = build().eval()(tensors)[2].reconstruction_loss["reconstruction_loss"]
    assert observed[3].abs() < 1e-4


def test_autotune_gets_its_payload_when_asked():
    *_, losses = build(extra_payload_autotune=True)(minibatch())
    assert set(losses.extra_metrics) == {"z", "batch", "labels"}


@pytest.mark.parametrize(
    ("kwargs", "error", "match"),
    [
        ({"gene_likelihood": "znib"}, ValueError, "'zinb', 'nb', 'poisson', 'lognormal'"),
        ({"latent_distribution": "t"}, ValueError, "'normal', 'ln', 'deterministic'"),
        ({"dispersion": "cell"}, ValueError, "'gene-cell'"),
        ({"batch_representation": "two-hot"}, ValueError, "'one-hot', 'embedding'"),
        ({"n_latents": 3}, TypeError, "n_latents.*n_latent"),
        ({"use_observed_lib_size": False}, ValueError, "library_log_means"),
    ],
)
def test_what_makes_no_module_is_refused(kwargs, error, match):
    with pytest.raises(error, match=match):
        build(**kwargs)


# -- several modalities -----------------------------------------------------------------------


def two_modalities():
    torch.manual_seed(3)
    return MultimodalVAE(
        {"rna": Modality(N_GENES, "zinb"), "adt": Modality(5, "nb")},
        CovariateSizes(n_batch=N_BATCH),
        Architecture(n_hidden=8),
        Options(n_latent=3, fusion="poe"),
    ).eval()


def two_modalities_minibatch():
    tensors = minibatch()
    return {
        "rna": tensors["X"],
        "adt": torch.poisson(torch.rand(N_CELLS, 5) * 20),
        "batch": tensors["batch"],
        "rna_present": torch.arange(N_CELLS)[:, None] % 3 != 0,
        "adt_present": torch.arange(N_CELLS)[:, None] % 3 != 1,
    }


def test_many_modalities_sum_their_distortions():
    module, tensors = two_modalities(), two_modalities_minibatch()
    inferred, generated, losses = module(tensors)
    assert set(generated["px"]) == set(inferred["library"]) == {"rna", "adt"}
    for name in ("rna", "adt"):
        present = tensors[f"{name}_present"].squeeze()
        expected = -generated["px"][name].log_prob(tensors[name]).sum(-1) * present
        found = losses.reconstruction_loss[f"reconstruction_loss_{name}"]
        torch.testing.assert_close(found, expected)
    losses.loss.backward()
    assert all(torch.isfinite(p.grad).all() for p in module.parameters())


def test_what_a_missing_modality_holds_does_not_matter():
    module, tensors = two_modalities(), two_modalities_minibatch()
    other = dict(tensors)
    other["adt"] = tensors["adt"].where(tensors["adt_present"], 7.0)
    losses = []
    for given in (tensors, other):
        torch.manual_seed(0)
        losses.append(module(given)[2].loss)
    torch.testing.assert_close(*losses, rtol=0, atol=0)


@pytest.mark.slow
def test_many_modalities_sample_and_bound():
    module, tensors = two_modalities(), two_modalities_minibatch()
    draws = module.sample(tensors, n_samples=2)
    assert draws["adt"].shape == (N_CELLS, 5, 2)
    elbos = [-module(tensors)[2].loss for _ in range(50)]
    assert module.marginal_ll(tensors, 300, return_mean=True) > torch.stack(elbos).mean()
