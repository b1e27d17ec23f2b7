"""What the objective becomes as the posterior variance vanishes, and its gradient."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch.distributions import Normal

from betavi.module import BetaVAE
from betavi.module.infer import _pseudo_posteriors
from betavi.nn import PRIORS
from tests.conftest import mostly_slow

N_CELLS, N_GENES = 12, 8


def build(**kwargs):
    torch.manual_seed(0)
    return BetaVAE(n_input=N_GENES, n_batch=1, n_latent=3, n_hidden=16, **kwargs).eval()


def minibatch(n_cells=N_CELLS):
    torch.manual_seed(1)
    code = torch.zeros(n_cells, 1, dtype=torch.long)
    return {"X": torch.poisson(4 * torch.rand(n_cells, N_GENES)), "batch": code, "labels": code}


@torch.no_grad()
def shrunk(module, tensors, deviation):
    """Return latents, distortion and rate with every posterior as wide as ``deviation``."""
    inferred = module.inference(**module._get_inference_input(tensors))
    loc = inferred["qz"].loc
    # a posterior of its own, as the encoder's variance has a floor
    qz = Normal(loc, torch.full_like(loc, deviation))
    torch.manual_seed(2)
    u = qz.rsample()
    inferred |= {"qz": qz, "u": u, "z": module.latent.transform(u)}
    generated = module.generative(**module._get_generative_input(tensors, inferred))
    losses = module.loss(tensors, inferred, generated, kl_weight=0.0)
    return inferred["z"], losses.loss.item(), losses.kl_local["kl_divergence_z"].mean().item()


@pytest.mark.parametrize("prior", PRIORS)
def test_the_autoencoder_is_the_limit_of_a_vanishing_variance(prior):
    module = build(prior=prior, n_components=5)
    autoencoder = build(latent_distribution="deterministic")
    autoencoder.load_state_dict(module.state_dict(), strict=False)
    tensors = minibatch()
    with torch.no_grad():
        limit, _, losses = autoencoder(tensors)
    deviations = [10.0**-power for power in range(6)]
    found = [shrunk(module, tensors, deviation) for deviation in deviations]
    latent_errors = [(z - limit["z"]).abs().max().item() for z, _, _ in found]
    loss_errors = [abs(loss - losses.loss.item()) for _, loss, _ in found]
    # both go to zero in proportion to the width
    for errors in (latent_errors, loss_errors):
        assert (np.diff(errors) < 0).all()
        assert errors[-1] < 1e-3 * errors[0]
    # while every tenfold narrowing costs log 10 nats in each dimension, without end
    rates = np.array([r for _, _, r in found])
    np.testing.assert_allclose(np.diff(rates[2:]), 3 * math.log(10), rtol=0.05)
    assert losses.kl_local["kl_divergence_z"].abs().max() == 0


@pytest.mark.parametrize("beta", mostly_slow([0.0, 1.0, 7.0], {7.0}))
@pytest.mark.parametrize(
    "prior", mostly_slow([*PRIORS, "of a logistic normal"], {"standard_normal"})
)
def test_reparameterised_gradients_agree_with_finite_differences(prior, beta):
    """Of the expectation over z, by quadrature in two latent dimensions."""
    torch.manual_seed(0)
    kwargs = {"n_hidden": 6, "beta": beta, "n_latent": 2}
    kwargs |= (
        {"prior": prior, "n_components": 3} if prior in PRIORS else {"latent_distribution": "ln"}
    )
    module = BetaVAE(n_input=N_GENES, n_batch=1, **kwargs).eval().double()
    tensors = minibatch(1)
    tensors["X"] = tensors["X"].double()
    # a fine and even grid; a Gauss rule would not see the kinks of ReLU
    nodes = np.linspace(-6, 6, 101)
    grid = torch.tensor(np.stack(np.meshgrid(nodes, nodes), -1).reshape(-1, 2))
    mass = np.multiply.outer(*2 * [stats.norm.pdf(nodes)]).ravel()
    weight = torch.tensor(mass / mass.sum())

    def losses_at(noise):
        """Return what the module loses where standard normal noise puts z."""
        inferred = module.inference(**module._get_inference_input(tensors))
        u = inferred["qz"].loc + inferred["qz"].scale * noise[:, None]
        library = {"X": inferred["library"]["X"].expand(len(noise), 1, 1)}
        inferred |= {"u": u, "z": module.latent.transform(u), "library": library}
        generated = module.generative(**module._get_generative_input(tensors, inferred))
        return module.loss(tensors, inferred, generated)

    def expected():
        # the loss assembled here once more, from the parts that it reports
        losses = losses_at(grid)
        (nats,), kl = losses.reconstruction_loss.values(), losses.kl_local["kl_divergence_z"]
        return (weight[:, None] * (nats + beta * kl)).sum().item()

    # evenly scattered draws, whose mean is off by a tenth of what that of independent ones would be
    uniform = torch.quasirandom.SobolEngine(2, scramble=True, seed=3).draw(2**13).double()
    losses_at(Normal(0, 1).icdf(uniform.clamp(1e-9, 1 - 1e-9))).loss.backward()
    encoder = module.z_encoders["X"]
    for bias, index in itertools.product((encoder.mean.bias, encoder.variance.bias), range(2)):
        ends = []
        for step in (1e-4, -1e-4):
            with torch.no_grad():
                bias[index] += step
                ends.append(expected())
                bias[index] -= step
        difference = (ends[0] - ends[1]) / 2e-4
        assert bias.grad[index].item() == pytest.approx(difference, rel=0.01, abs=0.003)


@pytest.mark.parametrize("prior", PRIORS)
def test_learned_cells_leave_running_statistics_alone(prior):
    tensors, statistics = minibatch(), []
    for module in (build(prior=prior, n_components=5).train(), build().train()):
        torch.manual_seed(4)
        module(tensors)
        state = module.z_encoders.state_dict()
        statistics.append({key: value for key, value in state.items() if "running" in key})
    assert len(statistics[0]) == 2
    torch.testing.assert_close(*statistics)


@pytest.mark.parametrize("encode_covariates", [False, True])
@pytest.mark.parametrize("batch_representation", ["one-hot", "embedding"])
def test_learned_cells_start_as_real_ones(encode_covariates, batch_representation):
    module = build(
        prior="vamp", n_components=N_CELLS, encode_covariates=encode_covariates,
        batch_representation=batch_representation, n_continuous_cov=1, n_cats_per_cov=[3],
    )  # fmt: skip
    tensors = minibatch() | {
        "extra_continuous_covs": torch.randn(N_CELLS, 1),
        "extra_categorical_covs": torch.arange(N_CELLS)[:, None] % 3,
    }
    module.start_prior_at(tensors)
    inferred, _, _ = module(tensors)
    pseudo = _pseudo_posteriors(module)
    torch.testing.assert_close(pseudo.loc, inferred["qz"].loc)
    torch.testing.assert_close(pseudo.scale, inferred["qz"].scale)


def test_a_prior_of_the_posteriors_makes_the_rate_the_mutual_information():
    """With the cells themselves for learned cells, KL to their mixture is at most log n."""
    module = build(prior="vamp", n_components=N_CELLS)
    tensors = minibatch()
    module.start_prior_at(tensors)
    _, _, losses = module(tensors)
    assert losses.kl_local["kl_divergence_z"].mean() < math.log(N_CELLS)


@pytest.mark.parametrize("prior", PRIORS)
def test_importance_sampling_knows_the_prior(prior):
    module = build(prior=prior, n_components=5)
    tensors = minibatch()
    estimate = module.marginal_ll(tensors, n_mc_samples=500, n_mc_samples_per_pass=100)
    elbos = []
    for _ in range(50):
        _, _, losses = module(tensors)
        nats = losses.reconstruction_loss["reconstruction_loss"]
        elbos.append(-(nats + losses.kl_local["kl_divergence_z"]).detach())
    assert (estimate > torch.stack(elbos).mean(dim=0) - 0.05).all()
