"""Posterior of cells, from encoders or from stored experts (posteriors of one modality)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from scvi import REGISTRY_KEYS
from scvi.module.base import auto_move_data
from torch.distributions import Normal

from betavi.data import expert_keys, present_key
from betavi.kernels import dense
from betavi.kernels.sparse import log1p
from betavi.nn import NormalMixture, observed_log_library
from betavi.nn.networks import evaluating

if TYPE_CHECKING:
    from torch import Tensor
    from torch.distributions import Distribution

    from betavi.module.vae import MultimodalVAE

Tensors = dict[str, Any]


def get_inference_input(
    module: MultimodalVAE, tensors: Tensors, full_forward_pass: bool = False
) -> dict[str, Any]:
    """Return the arguments of ``inference``: counts, or the experts of a minified object."""
    if full_forward_pass or module.minified_data_type is None:
        return {
            "x": {name: tensors[name] for name in module.z_encoders},
            "present": present_masks(module, tensors),
            "batch_index": tensors[REGISTRY_KEYS.BATCH_KEY],
            "cont_covs": tensors.get(REGISTRY_KEYS.CONT_COVS_KEY),
            "cat_covs": tensors.get(REGISTRY_KEYS.CAT_COVS_KEY),
            "design": module.design(tensors),
        }
    keys = {name: expert_keys(name) for name in module.z_encoders}
    # with these names, scvi-tools infers without encoders
    return {
        "qzm": {name: tensors[key.mean] for name, key in keys.items()},
        "qzv": {name: tensors[key.variance] for name, key in keys.items()},
        "observed_lib_size": {name: tensors[key.total] for name, key in keys.items()},
        "present": present_masks(module, tensors),
    }


def present_masks(module: MultimodalVAE, tensors: Tensors) -> dict[str, Tensor]:
    """Return masks of the cells with a modality, ``(n_cells, 1)``.

    If all cells have it, no mask.
    """
    keys = {name: present_key(name) for name in module.z_encoders}
    return {name: tensors[key].bool() for name, key in keys.items() if key in tensors}


@auto_move_data
def infer(
    module: MultimodalVAE,
    x: dict[str, Tensor],
    present: dict[str, Tensor],
    batch_index: Tensor,
    cont_covs: Tensor | None = None,
    cat_covs: Tensor | None = None,
    n_samples: int = 1,
    design: Tensor | None = None,
) -> dict[str, Any]:
    """Infer the posterior from counts, and draw z and the library sizes.

    With a ``design``, ``(n_cells, n_columns)``, encoders read the counts without its effects.
    """
    experts: dict[str, Normal] = {}
    libraries: dict[str, Tensor | Normal] = {}
    weights: dict[str, Tensor] = {}
    for name, counts in x.items():
        h, weights[name] = _encoder_input(module, name, counts, design)
        h, categories = _with_covariates(module, h, batch_index, cont_covs, cat_covs)
        experts[name] = module.z_encoders[name](h, *categories)
        if name in module.l_encoder:
            libraries[name] = module.l_encoder[name](h, *categories)
        elif name in module.image_scales:
            # images have no library size
            libraries[name] = h.new_zeros(*h.shape[:-1], 1)
        else:
            libraries[name] = observed_log_library(counts)
    fused = module.fusion(experts, present)
    drawn = _draw_all(module, module.latent.posterior(fused), libraries, n_samples)
    return drawn | {"experts": experts, "weights": weights}


def _encoder_input(
    module: MultimodalVAE, name: str, counts: Tensor, design: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return what the encoder reads of a modality, and the weights of the cells in the loss."""
    if name in module.image_scales:
        images = dense(counts)
        return module.image_scales[name](images), images.new_ones(images.shape[:-1])
    limited, weights = module.depth_limits[name](counts)
    if design is not None:
        limited = module.without_effects(limited, design)
    return log1p(limited) if module.options.log_variational else limited, weights


def _with_covariates(
    module: MultimodalVAE,
    h: Tensor,
    batch: Tensor,
    continuous: Tensor | None,
    categorical: Tensor | None,
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Append the covariates to the input of an encoder that reads them."""
    if not module.options.encode_covariates:
        return h, ()
    return module.with_covariates(dense(h), batch, continuous, categorical)


def current_prior(module: MultimodalVAE) -> Distribution:
    """Return p(u), given the current posteriors of learned cells."""
    return module.prior(_pseudo_posteriors(module))


def _pseudo_posteriors(module: MultimodalVAE) -> Normal | None:
    """Return the posteriors of learned cells, or None if the prior does not read them."""
    if not module.prior.reads_pseudo_cells:
        return None
    cells = module.pseudo_cells
    experts = {}
    covariates = cells.batch, cells.continuous, cells.categorical
    # with running statistics of real cells and at one β, so that every cell has the same prior
    condition = module.beta_condition
    with evaluating(module.z_encoders), condition.at(condition.default):
        for name, h in cells.h.items():
            inputs, categories = _with_covariates(module, h, *covariates)
            experts[name] = module.z_encoders[name](inputs, *categories)
    fused = module.fusion(experts, cells.present)
    return Normal(fused.loc, fused.scale, validate_args=False)


@auto_move_data
def infer_from_experts(
    module: MultimodalVAE,
    qzm: dict[str, Tensor],
    qzv: dict[str, Tensor],
    observed_lib_size: dict[str, Tensor],
    present: dict[str, Tensor],
    n_samples: int = 1,
) -> dict[str, Any]:
    """Draw z from the experts of a minified object."""
    experts = {
        name: Normal(mean, qzv[name].sqrt(), validate_args=False) for name, mean in qzm.items()
    }
    libraries: dict[str, Tensor | Normal] = {
        name: observed_log_library(total) for name, total in observed_lib_size.items()
    }
    posterior = module.latent.posterior(module.fusion(experts, present))
    weights = {
        name: torch.ones_like(total).squeeze(-1) for name, total in observed_lib_size.items()
    }
    drawn = _draw_all(module, posterior, libraries, n_samples)
    return drawn | {"experts": experts, "weights": weights}


def _draw_all(
    module: MultimodalVAE, qz: Distribution, libraries: dict[str, Tensor | Normal], n_samples: int
) -> dict[str, Any]:
    """Draw from the posteriors of z and of inferred library sizes."""
    # u has the density, and z is the decoder's input
    if module.training and n_samples == 1 and isinstance(qz, NormalMixture):
        u = qz.strata()
        n_samples = len(u)
    else:
        u = _draw(qz, n_samples)
    drawn, ql = {}, {}
    for name, library in libraries.items():
        if isinstance(library, Normal):
            ql[name] = library
            drawn[name] = _draw(library, n_samples)
        else:
            # one value for all draws of a cell
            drawn[name] = library.expand(n_samples, *library.shape) if n_samples > 1 else library
    return {"z": module.latent.transform(u), "u": u, "qz": qz, "library": drawn, "ql": ql}


def start_prior_at(module: MultimodalVAE, cells: Tensors) -> None:
    """Start the prior's learned cells at a minibatch of ``options.n_components`` cells."""
    module.pseudo_cells.start_at(
        {name: _encoder_input(module, name, cells[name])[0] for name in module.z_encoders},
        cells[REGISTRY_KEYS.BATCH_KEY],
        cells.get(REGISTRY_KEYS.CONT_COVS_KEY),
        cells.get(REGISTRY_KEYS.CAT_COVS_KEY),
        present_masks(module, cells),
    )


def _draw(distribution: Distribution, n_samples: int) -> Tensor:
    return distribution.rsample((n_samples,) if n_samples > 1 else ())
