"""Where a minibatch becomes a loss: encoders, posterior, decoders, likelihoods, objective.

The order of the steps is written here and nowhere else. scvi-tools calls them in this order::

    tensors -> _get_inference_input -> inference   q(z | x), z, library sizes
            -> _get_generative_input -> generative  p(x | z) of each modality
            -> loss                                 distortion + β * constraint(rate)
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, cast

import torch
from scvi import REGISTRY_KEYS
from scvi.module.base import EmbeddingModuleMixin, LossOutput, auto_move_data
from scvi.utils import unsupported_if_adata_minified
from torch import Tensor, nn
from torch.distributions import Normal

from betavi._tables import lookup
from betavi.likelihoods import LIKELIHOODS, DispersionSizes
from betavi.module.estimates import EstimatesMixin
from betavi.nn import (
    FUSIONS,
    LATENTS,
    PRIORS,
    ROUNDING,
    Decoder,
    Dial,
    Encoder,
    LatentLibrary,
    NormalMixture,
    PseudoCells,
    TypicalLibrary,
    evaluating,
    observed_log_library,
)
from betavi.objective import RateController, constrained, distortion, rate, rates

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch.distributions import Distribution

    from betavi.likelihoods import Likelihood, Start
    from betavi.module.options import CovariateSizes, Modality, Options
    from betavi.nn import Architecture

Tensors = dict[str, Any]

BATCH_IS_EMBEDDED: dict[str, bool] = {"one-hot": False, "embedding": True}
"""Whether networks read a vector of the batch instead of its code, by the user's word."""


def present_key(modality: str) -> str:
    """Return the minibatch key of the mask that says which cells have ``modality``."""
    return f"{modality}_present"


class ExpertKeys(NamedTuple):
    """Minibatch keys of what a minified object keeps of a modality in the place of counts."""

    mean: str
    variance: str
    total: str


def expert_keys(modality: str) -> ExpertKeys:
    """Return the minibatch keys of the expert of ``modality``, and of the cells' totals."""
    return ExpertKeys(*(f"{modality}_{field}" for field in ("mean", "variance", "total")))


class MultimodalVAE(EmbeddingModuleMixin, EstimatesMixin):
    """A variational autoencoder of one modality or many.

    Parameters
    ----------
    modalities
        The assays by the key of their counts in a minibatch.
    sizes
        How many categories and values the covariates have.
    architecture
        How the networks are built.
    options
        What the model is.

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

    usual_peak: ClassVar[float | None] = 1e-2
    """Peak of the learning rate of a training that names none; a constant one if None."""

    is_fresh: Tensor
    trained_beta: Tensor
    held_rate: Tensor

    def __init__(
        self,
        modalities: Mapping[str, Modality],
        sizes: CovariateSizes,
        architecture: Architecture,
        options: Options,
    ) -> None:
        super().__init__()
        self.options = options
        self.sizes = sizes
        self.dial = Dial(options.beta)
        word = options.batch_representation
        self.embeds_batch = lookup(BATCH_IS_EMBEDDED, word, "batch_representation")
        if self.embeds_batch:
            embedding_kwargs = options.batch_embedding_kwargs or {}
            self.init_embedding(REGISTRY_KEYS.BATCH_KEY, sizes.n_batch, **embedding_kwargs)
        self.z_encoders = nn.ModuleDict()
        self.l_encoder = nn.ModuleDict()
        self.typical_libraries = nn.ModuleDict()
        self.decoders = nn.ModuleDict()
        self.likelihoods = nn.ModuleDict()
        self.weights = {name: modality.weight for name, modality in modalities.items()}
        for name, modality in modalities.items():
            self._add(name, modality, architecture)
        self.fusion = lookup(FUSIONS, options.fusion, "fusion")()
        self.latent = lookup(LATENTS, options.latent_distribution, "latent_distribution")()
        if self.latent.has_no_rate and not self.dial.is_fixed:
            raise ValueError(
                "A deterministic autoencoder has no rate for β to weigh, and none of a range: leave "
                "beta out, or choose latent_distribution='normal'."
            )
        self.prior = lookup(PRIORS, options.prior, "prior")(options.n_latent, options.n_components)
        if self.prior.reads_pseudo_cells:
            widths = {name: modality.n_features for name, modality in modalities.items()}
            self.pseudo_cells = PseudoCells(
                options.n_components, widths, sizes.n_continuous, len(sizes.n_categories)
            )
        # whether the weights are as drawn; a buffer, so that saved weights know that they are not
        self.register_buffer("is_fresh", torch.tensor(True))
        # the β of the last training step, and what steered it
        self.register_buffer("trained_beta", torch.tensor(float("nan")))
        # nats at which the last training held the rate, if it did
        self.register_buffer("held_rate", torch.tensor(float("nan")))
        self.controller = RateController()

    @property
    def settled_beta(self) -> float:
        """The β that is answered at if none is asked for.

        Of a model of one β, what training ended with, which a schedule or a controller may have made
        another than the constructor's; of a model of many, 1 or the end of the range closest to it.
        """
        trained = self.trained_beta.item()
        if not self.dial.is_fixed or math.isnan(trained):
            return self.dial.beta
        # of single precision, whose digits beyond the sixth mean nothing
        return float(f"{trained:.6g}")

    def check_beta(self, beta: float) -> None:
        """Refuse a β that the module was not trained at.

        Raises
        ------
        ValueError
            If β is outside the range, or is not the only one.
        """
        if not self.dial.is_fixed:
            self.dial.check(beta)
        elif not math.isclose(beta, self.settled_beta, rel_tol=ROUNDING):
            raise ValueError(
                f"This model is of one β, {self.settled_beta:g}, and answers at no other. Train "
                "every β in a range at once with BetaVI(adata, beta=(0.1, 10))."
            )

    def _add(self, name: str, modality: Modality, architecture: Architecture) -> None:
        options, sizes = self.options, self.sizes
        likelihood = lookup(LIKELIHOODS, modality.likelihood, "gene_likelihood")
        n_values, n_categories = self._covariate_widths()
        encoded = (n_values, n_categories) if options.encode_covariates else (0, [])
        width = modality.n_features + encoded[0]
        dial = None if self.dial.is_fixed else self.dial
        self.z_encoders[name] = Encoder(
            width, options.n_latent, encoded[1], architecture, dial=dial
        )
        if modality.library_prior is not None:
            prior = modality.library_prior
            self.l_encoder[name] = LatentLibrary(width, encoded[1], architecture, *prior)
        if modality.typical is not None:
            self.typical_libraries[name] = TypicalLibrary(*modality.typical)
        self.decoders[name] = Decoder(options.n_latent, n_values, n_categories, architecture, dial)
        self.likelihoods[name] = likelihood(
            architecture.n_hidden,
            modality.n_features,
            "softplus" if options.given_size else "softmax",
            options.dispersion,
            DispersionSizes(sizes.n_batch, sizes.n_labels),
            dial,
        )

    def _covariate_widths(self) -> tuple[int, list[int]]:
        """Return how many values, and how many categories of each code, a network reads."""
        if self.embeds_batch:
            batch = self.get_embedding(REGISTRY_KEYS.BATCH_KEY)
            return self.sizes.n_continuous + batch.embedding_dim, list(self.sizes.n_categories)
        return self.sizes.n_continuous, [self.sizes.n_batch, *self.sizes.n_categories]

    def start_at(self, starts: Mapping[str, Start]) -> None:
        """Let the decoder of each modality start at the moments of its features."""
        for name, start in starts.items():
            cast("Likelihood", self.likelihoods[name]).start_at(start)
        self.is_fresh.fill_(False)

    def start_prior_at(self, cells: Tensors) -> None:
        """Let the learned cells of the prior start as a minibatch of ``options.n_components``."""
        self.pseudo_cells.start_at(
            {name: self._read(cells[name]) for name in self.z_encoders},
            cells[REGISTRY_KEYS.BATCH_KEY],
            cells.get(REGISTRY_KEYS.CONT_COVS_KEY),
            cells.get(REGISTRY_KEYS.CAT_COVS_KEY),
            self._present(cells),
        )

    # -- encoders and posterior ---------------------------------------------------------------

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
        disagreement = self.fusion.disagreement(fused, experts, present)
        return drawn | {"experts": experts, "disagreement": disagreement}

    def _read(self, counts: Tensor) -> Tensor:
        """Return what an encoder reads of counts."""
        return torch.log1p(counts) if self.options.log_variational else counts

    def _encoded(
        self, h: Tensor, batch: Tensor, continuous: Tensor | None, categorical: Tensor | None
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Append the covariates to what an encoder reads, if it is to read them."""
        if not self.options.encode_covariates:
            return h, ()
        return self._with_covariates(h, batch, continuous, categorical)

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
        return self._drawn(posterior, libraries, n_samples)

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

    # -- decoders and likelihoods -------------------------------------------------------------

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
        }

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
    ) -> dict[str, Any]:
        """Return p(x given z) of each modality, and the priors of z and of the library sizes.

        Parameters
        ----------
        z
            Latent positions, ``(..., n_cells, n_latent)``.
        library
            Log library size by modality, ``(..., n_cells, 1)``.
        batch_index, y
            Codes of batch and label, ``(n_cells, 1)``.
        cont_covs, cat_covs
            Continuous and categorical covariates, ``(n_cells, n_covariates)``.
        size_factor
            Log size factor, ``(n_cells, 1)``; read only by a model that was given size factors.
        transform_batch
            Decode every cell as if it came from the batch with this code.
        """
        if transform_batch is not None:
            batch_index = torch.ones_like(batch_index) * transform_batch
        h, categories = self._with_covariates(z, batch_index, cont_covs, cat_covs)
        px = {}
        for name, log_library in library.items():
            log_size = size_factor if self.options.given_size else log_library
            px[name] = self.likelihoods[name](
                self.decoders[name](h, *categories), log_size, batch_index, y
            )
        pl = {
            name: cast("LatentLibrary", part).prior(batch_index)
            for name, part in self.l_encoder.items()
        }
        return {"px": px, "pl": pl, "pz": self.current_prior()}

    def _with_covariates(
        self, h: Tensor, batch: Tensor, continuous: Tensor | None, categorical: Tensor | None
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Append continuous covariates to ``h`` and return the codes of the categorical ones."""
        values = [] if continuous is None else [continuous]
        codes = () if categorical is None else categorical.split(1, dim=1)
        if self.embeds_batch:
            values.append(self.compute_embedding(REGISTRY_KEYS.BATCH_KEY, batch))
        else:
            codes = (batch, *codes)
        expanded = [value.expand(*h.shape[:-1], value.shape[-1]) for value in values]
        return torch.cat([h, *expanded], dim=-1), codes

    # -- objective ----------------------------------------------------------------------------

    @unsupported_if_adata_minified
    def loss(
        self,
        tensors: Tensors,
        inference_outputs: dict[str, Any],
        generative_outputs: dict[str, Any],
        kl_weight: Tensor | float = 1.0,
        free_bits: float = 0.0,
        capacity: float | None = None,
    ) -> LossOutput:
        """Return distortion + ``kl_weight`` * β * rate + the rate of latent library sizes.

        The terms are recorded per cell and unweighted, in nats, so that every logged ELBO is at
        weight 1. The loss is their mean over the minibatch's cells.

        Parameters
        ----------
        tensors, inference_outputs, generative_outputs
            A minibatch, and what :meth:`inference` and :meth:`generative` make of it.
        kl_weight
            Share of β, the module's, that is in force.
        free_bits, capacity
            What takes the place of the rate: see :func:`betavi.objective.constrained`.
        """
        px, present, qz = generative_outputs["px"], self._present(tensors), inference_outputs["qz"]
        u = inference_outputs["u"]
        distortions = {
            name: _expected(qz, u, distortion(px[name], tensors[name], present.get(name)))
            for name in px
        }
        z_rates = _expected(qz, u, rates(qz, generative_outputs["pz"], u))
        z_rate = z_rates.sum(dim=-1)
        l_rate = torch.zeros_like(z_rate)
        for name, ql in inference_outputs["ql"].items():
            library = inference_outputs["library"][name]
            l_rate = l_rate + rate(ql, generative_outputs["pl"][name], library)
        weight = kl_weight * self.dial.weight
        # free bits of each dimension, or of all at once
        nats = free_bits * self.options.n_latent / z_rates.shape[-1]
        with_same_beta = None if self.dial.drawn is None else self.dial.drawn.squeeze(1).argsort()
        pressed = constrained(z_rates, nats, capacity, with_same_beta)
        disagreement = inference_outputs.get("disagreement")
        if disagreement is not None:
            alpha = self.fusion.share_of_experts
            pressed = (1 - alpha) * pressed + alpha * disagreement
        weighted = sum(self.weights[name] * nats for name, nats in distortions.items())
        return LossOutput(
            loss=(weighted + weight * pressed + l_rate).mean(),
            reconstruction_loss={self._distortion_key(k): v for k, v in distortions.items()},
            kl_local={"kl_divergence_l": l_rate, "kl_divergence_z": z_rate},
            extra_metrics=self._payload(tensors, inference_outputs),
        )

    def _distortion_key(self, modality: str) -> str:
        return f"reconstruction_loss_{modality}"

    def _payload(self, tensors: Tensors, inference_outputs: dict[str, Any]) -> dict[str, Tensor]:
        if not self.options.extra_payload_autotune:
            return {}
        return {
            "z": inference_outputs["z"],
            "batch": tensors[REGISTRY_KEYS.BATCH_KEY],
            "labels": tensors[REGISTRY_KEYS.LABELS_KEY],
        }

    def _named(self, outputs: dict[str, Any]) -> dict[str, Any]:
        """Return outputs in which libraries and likelihoods are dictionaries by modality."""
        return outputs


def _expected(qz: Distribution, u: Tensor, values: Tensor) -> Tensor:
    """Return the mean over the strata of a mixture, if values are of them."""
    if isinstance(qz, NormalMixture) and u.ndim > qz.loc.ndim:
        return qz.average(values)
    return values


def _draw(distribution: Distribution, n_samples: int) -> Tensor:
    """Draw once, or ``n_samples`` times along a new first axis."""
    draw: Tensor = distribution.rsample((n_samples,) if n_samples > 1 else ())
    return draw


def _repeat(value: Tensor, n_samples: int) -> Tensor:
    """Give a value per cell the shape of ``n_samples`` draws of it."""
    return value.expand(n_samples, *value.shape) if n_samples > 1 else value
