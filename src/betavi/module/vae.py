"""From a minibatch to a loss: posterior, decoders, likelihoods, objective.

scvi-tools calls the steps in this order::

    tensors -> _get_inference_input -> inference   q(z | x), z, library sizes
            -> _get_generative_input -> generative  p(x | z) of each modality
            -> loss                                 distortion + β * constraint(rate)
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, cast

import torch
from scvi import REGISTRY_KEYS
from scvi.module.base import (
    BaseMinifiedModeModuleClass,
    EmbeddingModuleMixin,
    LossOutput,
    auto_move_data,
)
from scvi.utils import unsupported_if_adata_minified
from torch import Tensor, nn

from betavi._tables import lookup
from betavi.data import COUNTS, present_key
from betavi.kernels import totals
from betavi.module import estimates, infer
from betavi.module.build import BATCH_IS_EMBEDDED, add_parts
from betavi.module.image_start import start_images_at
from betavi.module.infer import present_masks
from betavi.nn import ROUNDING, BetaCondition, NormalMixture
from betavi.objective import constrained, distortion, rate, rates
from betavi.objective.terms import mean_of_cells

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from torch.distributions import Distribution, Normal

    from betavi.data import CellManager
    from betavi.data.start_images import ImageStart
    from betavi.likelihoods import Likelihood, Start
    from betavi.module.options import CovariateSizes, Modality, Options
    from betavi.nn import Architecture, Decoder, Fusion, Latent, Prior
    from betavi.nn.library import LatentLibrary, TypicalLibrary
    from betavi.nn.prior.pseudo_cells import PseudoCells
    from betavi.objective import RateController
    from betavi.objective.terms import CellMean

Tensors = dict[str, Any]


class MultimodalVAE(EmbeddingModuleMixin, BaseMinifiedModeModuleClass):
    """Variational autoencoder of one or more modalities.

    Parameters
    ----------
    modalities
        Modalities by the key of their counts in a minibatch.
    sizes
        Sizes of the covariates.
    architecture
        Architecture of the networks.
    options
        Options of the model.

    Raises
    ------
    ValueError
        If a word is not in its table.

    Examples
    --------
    >>> import betavi.module as bm
    >>> from betavi.nn import Architecture
    >>> modalities = {"rna": bm.Modality(500, "zinb"), "adt": bm.Modality(20, "nb")}
    >>> options = bm.Options(n_latent=8, fusion="poe")
    >>> module = bm.MultimodalVAE(modalities, bm.CovariateSizes(1), Architecture(), options)
    >>> sorted(module.decoders)
    ['adt', 'rna']
    """

    is_fresh: Tensor
    trained_beta: Tensor
    held_rate: Tensor
    depth_limits: nn.ModuleDict
    image_scales: nn.ModuleDict
    z_encoders: nn.ModuleDict
    l_encoder: nn.ModuleDict
    typical_libraries: nn.ModuleDict
    decoders: nn.ModuleDict
    likelihoods: nn.ModuleDict
    fusion: Fusion
    latent: Latent
    prior: Prior
    pseudo_cells: PseudoCells
    controller: RateController

    _get_inference_input = infer.get_inference_input
    _regular_inference = infer.infer
    _cached_inference = infer.infer_from_experts
    current_prior = infer.current_prior
    start_prior_at = infer.start_prior_at
    sample = estimates.sample
    mean_rate = estimates.mean_rate
    marginal_ll = estimates.marginal_ll

    def __init__(
        self,
        modalities: Mapping[str, Modality],
        sizes: CovariateSizes,
        architecture: Architecture,
        options: Options,
    ) -> None:
        super().__init__()
        self.options, self.sizes, self.beta_condition = options, sizes, BetaCondition(options.beta)
        word = options.batch_representation
        self.embeds_batch = lookup(BATCH_IS_EMBEDDED, word, "batch_representation")
        self.weights = {name: modality.weight for name, modality in modalities.items()}
        self.likelihood_names = {name: part.likelihood for name, part in modalities.items()}
        add_parts(self, modalities, architecture)

    @property
    def settled_beta(self) -> float:
        """β used by default.

        For a model trained at one β: the β at the end of training, which a schedule or a controller
        may have changed. For a range of β: the β of the range closest to 1.
        """
        trained = self.trained_beta.item()
        if not self.beta_condition.is_fixed or math.isnan(trained):
            return self.beta_condition.beta
        # single precision has six reliable digits
        return float(f"{trained:.6g}")

    def check_beta(self, beta: float) -> None:
        """Raise a ValueError for a β that the module was not trained with."""
        if not self.beta_condition.is_fixed:
            self.beta_condition.check(beta)
        elif not math.isclose(beta, self.settled_beta, rel_tol=ROUNDING):
            raise ValueError(
                f"beta={beta!r} is not available: this model was trained with one β, "
                f"{self.settled_beta:g}. To choose β after training, train on a range of β: "
                "BetaVI(adata, beta=(0.1, 10))"
            )

    def start_at(self, starts: Mapping[str, Start | ImageStart]) -> None:
        """Start each modality's decoder at the moments of its features, or of its images."""
        for name, start in starts.items():
            cast("Any", self.likelihoods[name]).start_at(start)
        of_images = {name: starts[name] for name in self.image_scales if name in starts}
        start_images_at(self, cast("Mapping[str, ImageStart]", of_images))
        self.is_fresh.fill_(False)

    def start_programs_at(self, programs: Mapping[str, Tensor]) -> None:
        """Start each modality's decoder at programs, ``(n_latent, n_features)``, in log rates."""
        for name, part in programs.items():
            cast("Decoder", self.decoders[name]).start_at(self.likelihood(name).unscaled, part)

    def without_effects(self, counts: Tensor, design: Tensor) -> Tensor:
        """Return counts without the effects of a design. By default, there are no effects."""
        return counts

    def start_effects(self, manager: CellManager, cells: np.ndarray) -> None:
        """Start effects of perturbations at their estimates from some cells. By default, none."""

    def _get_generative_input(
        self, tensors: Tensors, inference_outputs: dict[str, Any]
    ) -> dict[str, Any]:
        size_factor = tensors.get(REGISTRY_KEYS.SIZE_FACTOR_KEY)
        return {
            "z": inference_outputs["z"],
            "library": inference_outputs["library"],
            "batch_index": tensors[REGISTRY_KEYS.BATCH_KEY],
            "y": tensors.get(REGISTRY_KEYS.LABELS_KEY),
            "cont_covs": tensors.get(REGISTRY_KEYS.CONT_COVS_KEY),
            "cat_covs": tensors.get(REGISTRY_KEYS.CAT_COVS_KEY),
            "size_factor": None if size_factor is None else size_factor.log(),
            "design": self.design(tensors),
        }

    def design(self, tensors: Tensors) -> Tensor | None:
        """Return columns to append to the decoders' last hidden layer. By default, none."""
        return None

    @auto_move_data
    def generative(
        self,
        z: Tensor,
        library: dict[str, Tensor],
        batch_index: Tensor,
        cont_covs: Tensor | None = None,
        cat_covs: Tensor | None = None,
        size_factor: Tensor | None = None,
        y: Tensor | None = None,
        transform_batch: Tensor | int | None = None,
        design: Tensor | None = None,
    ) -> dict[str, Any]:
        """Return p(x given z) of each modality, and the priors of z and of the library sizes.

        ``z``: ``(..., n_cells, n_latent)``. ``library``: log library sizes by modality,
        ``(..., n_cells, 1)``. ``batch_index`` and ``y``: codes of batch and label, ``(n_cells, 1)``.
        ``cont_covs`` and ``cat_covs``: ``(n_cells, n_covariates)``. ``size_factor``: log size
        factors, ``(n_cells, 1)``, used only if registered at setup. ``transform_batch``: code of a
        batch to decode in. ``design``: see :meth:`design`, ``(n_cells, n_columns)``.
        """
        if transform_batch is not None:
            batch_index = torch.ones_like(batch_index) * transform_batch
        px = self.decoded(z, library, batch_index, cont_covs, cat_covs, size_factor, y, design)
        tensors = {REGISTRY_KEYS.BATCH_KEY: batch_index}
        return {"px": px, "pl": self.library_priors(tensors), "pz": self.current_prior()}

    @auto_move_data
    def decoded(
        self,
        z: Tensor,
        library: dict[str, Tensor],
        batch_index: Tensor,
        cont_covs: Tensor | None = None,
        cat_covs: Tensor | None = None,
        size_factor: Tensor | None = None,
        y: Tensor | None = None,
        design: Tensor | None = None,
    ) -> dict[str, Distribution]:
        """Return only p(x given z) of each modality. See :meth:`generative`."""
        h, categories = self.with_covariates(z, batch_index, cont_covs, cat_covs)
        px = {}
        for name, log_library in library.items():
            log_size = size_factor if self.options.given_size else log_library
            head = self.decoders[name](h, *categories)
            if design is not None:
                head = torch.cat([head, design.expand(*head.shape[:-1], -1)], dim=-1)
            px[name] = self.likelihoods[name](head, log_size, batch_index, y)
        return px

    def decode(
        self, z: Tensor, tensors: Tensors, name: str, log_size: Tensor, batch: int | None = None
    ) -> Distribution:
        """Return p(x given z) of one modality, in each cell's own batch or in ``batch``.

        ``z`` is ``(..., n_cells, n_latent)``. ``log_size`` broadcasts to ``(..., n_cells, 1)``.
        Covariates are read from ``tensors``. If a batch lacks the modality, another batch is used,
        because the decoder has not learned the effect of the batch.
        """
        codes = self.measured_batch(tensors, name, batch)
        log_size = log_size.expand(*z.shape[:-1], 1)
        tensors = tensors | {REGISTRY_KEYS.BATCH_KEY: codes}
        inputs = self._get_generative_input(tensors, {"z": z, "library": {name: log_size}})
        if self.options.given_size:
            inputs["size_factor"] = log_size
        return self.decoded(**inputs)[name]

    def measured_batch(self, tensors: Tensors, name: str, batch: int | None = None) -> Tensor:
        """Return batch codes, ``(n_cells, 1)``, with batches without the modality replaced."""
        codes = tensors[REGISTRY_KEYS.BATCH_KEY].to(self.device)
        codes = codes if batch is None else torch.full_like(codes, batch)
        typical = self.typical(name)
        return codes if typical is None else typical.measured(codes)

    def log_sizes(self, tensors: Tensors, inferred: dict[str, Any], name: str) -> Tensor:
        """Return the log size factors of cells, or their log library sizes, ``(..., n_cells, 1)``."""
        if self.options.given_size:
            return tensors[REGISTRY_KEYS.SIZE_FACTOR_KEY].to(self.device).float().log()
        return inferred["library"][name]

    def library_priors(self, tensors: Tensors) -> dict[str, Normal]:
        """Return the priors of inferred log library sizes, by modality."""
        codes = tensors[REGISTRY_KEYS.BATCH_KEY].to(self.device)
        parts = self.l_encoder.items()
        return {name: cast("LatentLibrary", part).prior(codes) for name, part in parts}

    def typical(self, name: str) -> TypicalLibrary | None:
        """Return the distribution of library sizes of a modality.

        None if all cells have the modality.
        """
        # a ModuleDict has no get
        part = self.typical_libraries[name] if name in self.typical_libraries else None  # noqa: SIM401
        return cast("TypicalLibrary | None", part)

    def likelihood(self, name: str) -> Likelihood:
        """Return the likelihood of a modality."""
        return cast("Likelihood", self.likelihoods[name])

    def with_covariates(
        self, h: Tensor, batch: Tensor, continuous: Tensor | None, categorical: Tensor | None
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Append continuous covariates to ``h``. Return the result and the categorical codes."""
        values = [] if continuous is None else [continuous]
        codes = () if categorical is None else categorical.split(1, dim=1)
        if self.embeds_batch:
            values.append(self.compute_embedding(REGISTRY_KEYS.BATCH_KEY, batch))
        else:
            codes = (batch, *codes)
        expanded = [value.expand(*h.shape[:-1], value.shape[-1]) for value in values]
        return torch.cat([h, *expanded], dim=-1), codes

    @unsupported_if_adata_minified
    def loss(
        self,
        tensors: Tensors,
        inference_outputs: dict[str, Any],
        generative_outputs: dict[str, Any],
        kl_weight: Tensor | float = 1.0,
        free_bits: float = 0.0,
        capacity: float | None = None,
        cell_mean: CellMean = mean_of_cells,
    ) -> LossOutput:
        """Return the mean over cells of distortion + ``kl_weight`` * β * rate + library size terms.

        The rate is the KL divergence from the prior. An inferred library size adds its rate. If the
        model predicts observed library sizes from z, the error of this prediction is added, without
        a gradient for z. The distortion of a very deep cell has a small weight, see
        ``betavi.nn.depth.DepthLimit``. Recorded terms are per cell, in nats and unweighted, so that every logged
        ELBO is at weight 1. ``free_bits``, ``capacity`` and ``cell_mean`` constrain the rate: see
        :func:`betavi.objective.constrained`.
        """
        present = present_masks(self, tensors)
        qz, u = inference_outputs["qz"], inference_outputs["u"]
        distortions = {
            name: _expected(qz, u, distortion(px, tensors[name], present.get(name)))
            for name, px in generative_outputs["px"].items()
        }
        z_rates = _expected(qz, u, rates(qz, generative_outputs["pz"], u))
        z_rate = z_rates.sum(dim=-1)
        of_cells = inference_outputs["weights"]
        l_rate, weighted_l_rate = torch.zeros_like(z_rate), torch.zeros_like(z_rate)
        for name, ql in inference_outputs["ql"].items():
            library = inference_outputs["library"][name]
            l_nats = rate(ql, generative_outputs["pl"][name], library)
            l_rate = l_rate + l_nats
            weighted_l_rate = weighted_l_rate + of_cells[name] * l_nats
        weight = kl_weight * self.beta_condition.weight
        # free bits of each dimension, or of all dimensions together
        nats = free_bits * self.options.n_latent / z_rates.shape[-1]
        drawn = self.beta_condition.drawn
        order = None if drawn is None else drawn.squeeze(1).argsort()
        penalty = constrained(z_rates, nats, capacity, order, cell_mean)
        penalty = self.fusion.penalty(penalty, qz, inference_outputs["experts"], present)
        weighted = sum(
            self.weights[name] * of_cells[name] * nats for name, nats in distortions.items()
        )
        size_nats = self._size_nats(tensors, inference_outputs)
        return LossOutput(
            loss=(weighted + weight * penalty + weighted_l_rate + size_nats).mean(),
            reconstruction_loss={self.distortion_key(k): v for k, v in distortions.items()},
            kl_local={"kl_divergence_l": l_rate, "kl_divergence_z": z_rate},
            extra_metrics=self._payload(tensors, inference_outputs),
        )

    def _size_nats(self, tensors: Tensors, inferred: dict[str, Any]) -> Tensor | float:
        """Return the error in nats of predicting sizes from z, without a gradient for z."""
        total: Tensor | float = 0.0
        qz, u, z = inferred["qz"], inferred["u"], inferred["z"].detach()
        for name, typical in self.typical_libraries.items():
            if name in self.image_scales:
                # images have no library size
                continue
            library = cast("TypicalLibrary", typical)
            given = library.given(z, library.measured(tensors[REGISTRY_KEYS.BATCH_KEY]))
            nats = -given.log_prob(inferred["library"][name]).squeeze(-1)
            is_present = tensors[present_key(name)].squeeze(-1)
            has_size = (totals(tensors[name]).squeeze(-1) > 0) & is_present
            nats = inferred["weights"][name] * _expected(qz, u, nats)
            total = total + nats.where(has_size, 0.0)
        return total

    def distortion_key(self, modality: str) -> str:
        """Return the name under which scvi-tools records a modality's distortion."""
        return "reconstruction_loss" + (f"_{modality}" if modality != COUNTS else "")

    def _payload(self, tensors: Tensors, inference_outputs: dict[str, Any]) -> dict[str, Tensor]:
        if not self.options.extra_payload_autotune:
            return {}
        return {
            "z": inference_outputs["z"],
            "batch": tensors[REGISTRY_KEYS.BATCH_KEY],
            "labels": tensors[REGISTRY_KEYS.LABELS_KEY],
        }


def _expected(qz: Distribution, u: Tensor, values: Tensor) -> Tensor:
    """Average values over the components of a mixture, if there is one value per component."""
    if isinstance(qz, NormalMixture) and u.ndim > qz.loc.ndim:
        return qz.average(values)
    return values
