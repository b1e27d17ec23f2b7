"""From a minibatch to the posterior of its cells: encoders, or what a minified object keeps of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from scvi import REGISTRY_KEYS
from scvi.module.base import auto_move_data
from torch.distributions import Normal

from betavi.data import ExpertKeys, expert_keys, present_key
from betavi.kernels import dense, log1p
from betavi.module.parts import Parts
from betavi.nn import NormalMixture, evaluating, observed_log_library

if TYPE_CHECKING:
    from torch import Tensor
    from torch.distributions import Distribution

Tensors = dict[str, Any]


class InferenceMixin(Parts):
    """q(z given x), z and library sizes."""

    def _get_inference_input(
        self, tensors: Tensors, full_forward_pass: bool = False
    ) -> dict[str, Any]:
        if full_forward_pass or self.minified_data_type is None:
            return {
                "x": {name: tensors[name] for name in self.z_encoders},
                "present": self._present(tensors),
                "batch_index": tensors[REGISTRY_KEYS.BATCH_KEY],
                "cont_covs": tensors.get(REGISTRY_KEYS.CONT_COVS_KEY),
                "cat_covs": tensors.get(REGISTRY_KEYS.CAT_COVS_KEY),
            }
        keys = {name: self._expert_keys(name) for name in self.z_encoders}
        # scvi-tools infers from what is called so without encoders
        return {
            "qzm": {name: tensors[key.mean] for name, key in keys.items()},
            "qzv": {name: tensors[key.variance] for name, key in keys.items()},
            "observed_lib_size": {name: tensors[key.total] for name, key in keys.items()},
            "present": self._present(tensors),
        }

    def _expert_keys(self, modality: str) -> ExpertKeys:
        return expert_keys(modality)

    def _present(self, tensors: Tensors) -> dict[str, Tensor]:
        keys = {name: present_key(name) for name in self.z_encoders}
        return {name: tensors[key].bool() for name, key in keys.items() if key in tensors}

    @auto_move_data
    def _regular_inference(
        self,
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
            h, categories = self._encoded(self._read(counts), batch_index, cont_covs, cat_covs)
            experts[name] = self.z_encoders[name](h, *categories)
            if name in self.l_encoder:
                libraries[name] = self.l_encoder[name](h, *categories)
            else:
                libraries[name] = observed_log_library(counts)
        fused = self.fusion(experts, present)
        drawn = self._drawn(self.latent.posterior(fused), libraries, n_samples)
        return drawn | {"experts": experts}

    def _read(self, counts: Tensor) -> Tensor:
        """Return what an encoder reads of counts."""
        return log1p(counts) if self.options.log_variational else counts

    def _encoded(
        self, h: Tensor, batch: Tensor, continuous: Tensor | None, categorical: Tensor | None
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Append the covariates to what an encoder reads, if it is to read them."""
        if not self.options.encode_covariates:
            return h, ()
        return self._with_covariates(dense(h), batch, continuous, categorical)

    def current_prior(self) -> Distribution:
        """Return p(u), with the posteriors of learned cells as they are now."""
        return self.prior(self._pseudo_posteriors())

    def _pseudo_posteriors(self) -> Normal | None:
        """Return the posteriors of the learned cells, if the prior has any."""
        if not self.prior.reads_pseudo_cells:
            return None
        cells = self.pseudo_cells
        experts = {}
        # with the statistics of real cells, which learned ones must not change
        # and at one β, so that every cell has the same prior
        with evaluating(self.z_encoders), self.dial.resting():
            for name, h in cells.h.items():
                inputs, categories = self._encoded(
                    h, cells.batch, cells.continuous, cells.categorical
                )
                experts[name] = self.z_encoders[name](inputs, *categories)
        fused = self.fusion(experts, cells.present)
        return Normal(fused.loc, fused.scale, validate_args=False)

    @auto_move_data
    def _cached_inference(
        self,
        qzm: dict[str, Tensor],
        qzv: dict[str, Tensor],
        observed_lib_size: dict[str, Tensor],
        present: dict[str, Tensor],
        n_samples: int = 1,
    ) -> dict[str, Any]:
        """Draw z from the experts that a minified object keeps."""
        experts = {
            name: Normal(mean, qzv[name].sqrt(), validate_args=False) for name, mean in qzm.items()
        }
        libraries: dict[str, Tensor | Normal] = {
            name: observed_log_library(total) for name, total in observed_lib_size.items()
        }
        posterior = self.latent.posterior(self.fusion(experts, present))
        return self._drawn(posterior, libraries, n_samples) | {"experts": experts}

    def _drawn(
        self, qz: Distribution, libraries: dict[str, Tensor | Normal], n_samples: int
    ) -> dict[str, Any]:
        """Draw from the posterior of z, and from those of the libraries that are not observed."""
        # u is the variable that has the density, z what the decoder reads
        if self.training and n_samples == 1 and isinstance(qz, NormalMixture):
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
                drawn[name] = _repeat(library, n_samples)
        return {"z": self.latent.transform(u), "u": u, "qz": qz, "library": drawn, "ql": ql}

    def start_prior_at(self, cells: Tensors) -> None:
        """Let the learned cells of the prior start as a minibatch of ``options.n_components``."""
        self.pseudo_cells.start_at(
            {name: self._read(cells[name]) for name in self.z_encoders},
            cells[REGISTRY_KEYS.BATCH_KEY],
            cells.get(REGISTRY_KEYS.CONT_COVS_KEY),
            cells.get(REGISTRY_KEYS.CAT_COVS_KEY),
            self._present(cells),
        )


def _draw(distribution: Distribution, n_samples: int) -> Tensor:
    """Draw once, or ``n_samples`` times along a new first axis."""
    draw: Tensor = distribution.rsample((n_samples,) if n_samples > 1 else ())
    return draw


def _repeat(value: Tensor, n_samples: int) -> Tensor:
    """Give a value per cell the shape of ``n_samples`` draws of it."""
    return value.expand(n_samples, *value.shape) if n_samples > 1 else value
