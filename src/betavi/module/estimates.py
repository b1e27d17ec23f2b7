"""Monte Carlo estimates other than the loss."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from scvi.module.base import auto_move_data

from betavi.module.infer import present_masks
from betavi.nn import Point
from betavi.nn.networks import evaluating, in_mode
from betavi.objective import distortion, log_density, rate

if TYPE_CHECKING:
    from torch import Tensor

    from betavi.module.vae import MultimodalVAE


@torch.inference_mode()
def sample(
    module: MultimodalVAE,
    tensors: dict[str, Any],
    n_samples: int = 1,
    generative_kwargs: dict[str, Any] | None = None,
) -> Any:
    """Draw data from the posterior predictive distribution.

    Returns draws by modality on the CPU, ``(n_cells, n_features)``, or
    ``(n_cells, n_features, n_samples)`` for more than one sample.
    """
    _, outputs = module.forward(
        tensors,
        inference_kwargs={"n_samples": n_samples},
        generative_kwargs=generative_kwargs,
        compute_loss=False,
    )
    draws = {name: px.sample().cpu() for name, px in outputs["px"].items()}
    return draws if n_samples == 1 else {k: draw.permute(1, 2, 0) for k, draw in draws.items()}


@torch.no_grad()
def mean_rate(module: MultimodalVAE, tensors: dict[str, Any]) -> float:
    """Return the mean rate (KL) of a minibatch in nats per cell, in evaluation mode.

    In training mode, dropout in the encoder raises the rate by a tenth or more.
    """
    with evaluating(module):
        inferred = module.inference(**module._get_inference_input(tensors))
        return rate(inferred["qz"], module.current_prior(), inferred["u"]).mean().item()


@torch.inference_mode()
@auto_move_data
def marginal_ll(
    module: MultimodalVAE,
    tensors: dict[str, Any],
    n_mc_samples: int,
    return_mean: bool = False,
    n_mc_samples_per_pass: int = 1,
) -> Tensor | float:
    """Estimate the log marginal likelihood by importance sampling, in nats, ``(n_cells,)``.

    The estimate is a lower bound in expectation (Burda et al., 2016). ``n_mc_samples_per_pass``
    samples are decoded at once. More samples at once need more memory and less time.
    """
    log_weights = []
    # in training mode, likelihoods have faster distortions
    with in_mode(module.likelihoods, training=True):
        for start in range(0, n_mc_samples, n_mc_samples_per_pass):
            n_samples = min(n_mc_samples_per_pass, n_mc_samples - start)
            log_weight = _log_weight(module, tensors, n_samples)
            log_weights.append(log_weight if n_samples > 1 else log_weight[None])
    estimate = torch.cat(log_weights).logsumexp(dim=0) - math.log(n_mc_samples)
    return estimate.mean().item() if return_mean else estimate.cpu()


def _log_weight(module: MultimodalVAE, tensors: dict[str, Any], n_samples: int) -> Tensor:
    """Return log p(x, z) - log q(z given x) of new draws, ``(..., n_cells)``."""
    inferred, generated = module.forward(
        tensors,
        get_inference_input_kwargs={"full_forward_pass": True},
        inference_kwargs={"n_samples": n_samples},
        compute_loss=False,
    )
    if isinstance(inferred["qz"], Point):
        raise ValueError(
            "A deterministic autoencoder has no density over z, and therefore no marginal "
            "likelihood. To estimate a marginal likelihood, use latent_distribution='normal'."
        )
    log_weight = -latent_log_ratio(inferred, generated)
    present = present_masks(module, tensors)
    for name, px in generated["px"].items():
        log_weight = log_weight - distortion(px, tensors[name], present.get(name))
    return log_weight


def latent_log_ratio(inferred: dict[str, Any], generated: dict[str, Any]) -> Tensor:
    """Return log q - log p of samples of z and of latent library sizes, ``(..., n_cells)``."""
    u = inferred["u"]
    log_ratio = log_density(inferred["qz"], u) - log_density(generated["pz"], u)
    for name, ql in inferred["ql"].items():
        library, pl = inferred["library"][name], generated["pl"][name]
        log_ratio = log_ratio + log_density(ql, library) - log_density(pl, library)
    return log_ratio
