"""The posterior of the cells of a minibatch, from encoders or from stored experts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from scvi import REGISTRY_KEYS
from scvi.module.base import auto_move_data
from torch.distributions import Normal

from betavi.data import expert_keys, present_key
from betavi.kernels import dense, log1p
from betavi.nn import NormalMixture, evaluating, observed_log_library

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
        }
    keys = {name: expert_keys(name) for name in module.z_encoders}
    # under these names scvi-tools infers without encoders
    return {
        "qzm": {name: tensors[key.mean] for name, key in keys.items()},
        "qzv": {name: tensors[key.variance] for name, key in keys.items()},
        "observed_lib_size": {name: tensors[key.total] for name, key in keys.items()},
        "present": present_masks(module, tensors),
    }


def present_masks(module: MultimodalVAE, tensors: Tensors) -> dict[str, Tensor]:
    """Return masks of the cells that have a modality, ``(n_cells, 1)``, except where all have it."""
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
) -> dict[str, Any]:
    """Infer the posterior from counts, and draw z and the library sizes from it."""
    experts: dict[str, Normal] = {}
    libraries: dict[str, Tensor | Normal] = {}
    for name, counts in x.items():
        h, categories = _encoded(module, _read(module, counts), batch_index, cont_covs, cat_covs)
        experts[name] = module.z_encoders[name](h, *categories)
        if name in module.l_encoder:
            libraries[name] = module.l_encoder[name](h, *categories)
        else:
            libraries[name] = observed_log_library(counts)
    fused = module.fusion(experts, present)
    drawn = _drawn(module, module.latent.posterior(fused), libraries, n_samples)
    return drawn | {"experts": experts}


def _read(module: MultimodalVAE, counts: Tensor) -> Tensor:
    """Return the input of an encoder for some counts."""
    return log1p(counts) if module.options.log_variational else counts


def _encoded(
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
    """Return the posteriors of learned cells, if the prior has any."""
    if not module.prior.reads_pseudo_cells:
        return None
    cells = module.pseudo_cells
    experts = {}
    covariates = cells.batch, cells.continuous, cells.categorical
    # with the statistics of real cells, and at one β, so that every cell has the same prior
    with evaluating(module.z_encoders), module.beta_condition.resting():
        for name, h in cells.h.items():
            inputs, categories = _encoded(module, h, *covariates)
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
    """Draw z from the experts in a minified object."""
    experts = {
        name: Normal(mean, qzv[name].sqrt(), validate_args=False) for name, mean in qzm.items()
    }
    libraries: dict[str, Tensor | Normal] = {
        name: observed_log_library(total) for name, total in observed_lib_size.items()
    }
    posterior = module.latent.posterior(module.fusion(experts, present))
    return _drawn(module, posterior, libraries, n_samples) | {"experts": experts}


def _drawn(
    module: MultimodalVAE, qz: Distribution, libraries: dict[str, Tensor | Normal], n_samples: int
) -> dict[str, Any]:
    """Draw from the posterior of z, and from those of inferred library sizes."""
    # u is the variable that has the density, z what the decoder reads
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
    """Let the learned cells of the prior start as a minibatch of ``options.n_components``."""
    module.pseudo_cells.start_at(
        {name: _read(module, cells[name]) for name in module.z_encoders},
        cells[REGISTRY_KEYS.BATCH_KEY],
        cells.get(REGISTRY_KEYS.CONT_COVS_KEY),
        cells.get(REGISTRY_KEYS.CAT_COVS_KEY),
        present_masks(module, cells),
    )


def _draw(distribution: Distribution, n_samples: int) -> Tensor:
    """Draw once, or ``n_samples`` times along a new first axis."""
    return distribution.rsample((n_samples,) if n_samples > 1 else ())
