"""Old names of the primitives, until every ability is a function."""

from __future__ import annotations

from typing import Any

import numpy as np
from scvi import REGISTRY_KEYS
from scvi.utils import track

from betavi.likelihoods import LIKELIHOODS
from betavi.model.core import density, library_size
from betavi.model.core.beta import takes_beta
from betavi.model.core.latent_model import LatentModel

GETTERS = (
    "archetype", "denoise", "differential_abundance", "differential_expression", "find_holes", "generate",
    "get_aggregated_posterior", "get_elbo", "get_feature_correlation_matrix", "get_importance_weights",
    "get_latent_library_size", "get_likelihood_parameters", "get_marginal_ll", "get_normalized_accessibility",
    "get_normalized_expression", "get_protein_foreground_probability", "get_reconstruction_error",
    "interpolate", "posterior_predictive_sample", "predictability", "score_counts", "support", "translate",
)  # fmt: skip


def wrap_getters(cls: Any) -> Any:
    for name in GETTERS:
        if (
            hasattr(cls, name)
            and "beta" not in getattr(getattr(cls, name), "__signature__", _NONE).parameters
        ):
            setattr(cls, name, takes_beta(getattr(cls, name)))
    return cls


class _NONE:
    parameters: Any = {}


class Transition(LatentModel):
    _at = LatentModel.at_beta
    _own_draws = LatentModel.seeded
    _drawing = LatentModel.seeded
    _once = LatentModel.cached
    _cells_to_judge = LatentModel.held_out
    _has_seen = LatentModel.has_seen
    _chosen = LatentModel.named_modalities
    _features = LatentModel.features
    _inferred = LatentModel.infer
    _masked = LatentModel.masked
    _px = LatentModel.decode
    _decoder_reads = density.decoder_input
    _checked_positions = density.checked_positions
    _density_calibration = density.density_calibration
    _usual_size = library_size.usual_size

    def _posteriors(
        self, adata: Any, cells: Any, n_draws: int = 1, show_progress: bool = False
    ) -> Any:
        return density.posteriors(
            self, adata, cells, n_draws, "Encoding" if show_progress else None
        )

    def _known_cells(self, fitted: Any) -> Any:
        return density.calibration_cells(self, fitted)

    def _beta_at_work(self) -> float:
        return self.beta_in_force

    def _likelihood(self, name: str) -> str:
        return self.registry_["setup_args"]["likelihoods"][name]

    def _kind(self, name: str) -> Any:
        return LIKELIHOODS[self._likelihood(name)]

    def _cells(self, mdata: Any, indices: Any) -> np.ndarray:
        everyone = np.arange(mdata.n_obs)
        if indices is None:
            return everyone
        chosen = np.asarray(indices)
        return everyone[chosen if chosen.size else chosen.astype(np.int64)]

    def _seen_by(self, mdata: Any, modalities: Any, indices: Any, batch_size: Any) -> Any:
        self._check_if_trained(warn=False)
        mdata = self._validate_anndata(mdata)
        self.module.eval()
        yield from self.minibatches(mdata, indices, batch_size, modalities)

    def _drawn(self, tensors: Any, n_samples: int) -> Any:
        return self.infer(tensors, n_samples)["z"]

    def _measured(self, tensors: Any, name: str) -> Any:
        return self.module.measured_batch(tensors, name)

    def _typical(self, name: str) -> Any:
        return self.module.typical_libraries[name]

    @property
    def _reads_factors(self) -> bool:
        return bool(self.module.options.given_size)

    def _log_sizes(self, tensors: Any) -> Any:
        return library_size.cell_log_sizes(self, tensors, REGISTRY_KEYS.X_KEY)

    def _sums_to_size(self, name: str) -> bool:
        return bool(self.likelihood(name).reads_size) and not self._reads_factors

    def _refuse_to_diagnose(self) -> None:
        self._check_if_trained(warn=False)
        if self.module.latent.is_deterministic:
            raise ValueError(
                "A deterministic autoencoder has no posterior that could collapse. Train with "
                "latent_distribution='normal' to ask this."
            )

    def _obstacle_to_rescue(self) -> str | None:
        if not all(parameter.requires_grad for parameter in self.module.parameters()):
            return (
                "Some weights of this model are frozen, as those of a query are, and a rescue would "
                "train them. Rescue the reference, or let them be trained: "
                "model.module.requires_grad_(True)."
            )
        if not self.module.dial.is_fixed:
            return (
                "A model of many β collapses at the high ones, as it should: choose another with "
                "suggest_beta() and ask for it, beta=..."
            )
        if getattr(self, "validation_indices", None) is None or not len(self.validation_indices):
            return "The model held no cells out to judge remedies by: train it with train_size=0.9."
        return None

    def _repair(self) -> str:
        if not self.module.dial.is_fixed:
            return "model.suggest_beta(), and ask for the β that it names"
        return "train a new model" if self._obstacle_to_rescue() else "model.rescue()"

    def _asked_beta(self) -> float:
        module = self.module
        is_steered = not module.controller.log_beta.isnan()
        history = (getattr(self, "history_", None) or {}).get("beta")
        # a schedule may settle at another share of β than all of it
        has_settled = (
            history is not None and len(history) > 1 and history.iloc[-2:].nunique().item() == 1
        )
        return module.settled_beta if is_steered or has_settled else module.dial.beta


def refuse_minified(model: LatentModel) -> None:
    model.refuse_minified()


def in_turn(loader: Any, description: str, show_progress: bool) -> Any:
    return track(iter(loader), description, total=len(loader), disable=not show_progress)
