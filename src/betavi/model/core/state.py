"""What training left behind: cells it has not seen, the β it ended with, what could be repaired."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import torch

from betavi.model.core.beta import AtBetaMixin

if TYPE_CHECKING:
    from collections.abc import Iterator

    from scvi._types import AnnOrMuData

ENOUGH_HELD_OUT = 100

UNTRAINED = (
    "The model is not trained, and knows nothing of cells yet: model.train(). Of a query, that trains "
    "what is new in it."
)


class TrainedMixin(AtBetaMixin):
    """State of a trained model that more than one ability asks for."""

    def _check_if_trained(self, warn: bool = True, message: str = UNTRAINED) -> None:
        """Refuse to answer, or warn, before the model is trained."""
        super()._check_if_trained(warn, message)

    @contextmanager
    def _own_draws(self, seed: int | None) -> Iterator[None]:
        """Draw from a seed, if there is one, and leave torch's generators as they were."""
        devices = range(torch.cuda.device_count())
        with torch.random.fork_rng(devices, enabled=seed is not None):
            if seed is not None:
                torch.manual_seed(seed)
            yield

    def _cells_to_judge(self, adata: AnnOrMuData) -> np.ndarray:
        """Return cells that training has not seen, if there are enough."""
        held_out = getattr(self, "validation_indices", None)
        is_enough = held_out is not None and len(held_out) >= ENOUGH_HELD_OUT
        if is_enough and self._was_split(adata):
            return np.asarray(held_out)
        return np.arange(adata.n_obs)

    def _was_split(self, adata: AnnOrMuData) -> bool:
        """Say whether these are the cells that training was split into.

        A loaded model may have been given others: of as many, there is no telling.
        """
        parts = [getattr(self, f"{part}_indices", None) for part in ("train", "validation", "test")]
        was_trained_here = hasattr(self, "trainer")
        split = np.concatenate([part for part in parts if part is not None])
        return adata is self.adata and (was_trained_here or len(split) == adata.n_obs)

    def _refuse_to_diagnose(self) -> None:
        self._check_if_trained(warn=False)
        if self.module.latent.is_deterministic:
            raise ValueError(
                "A deterministic autoencoder has no posterior that could collapse. Train with "
                "latent_distribution='normal' to ask this."
            )

    def _obstacle_to_rescue(self) -> str | None:
        """Return why the model cannot be rescued, with what to do instead, or None if it can."""
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

    def _has_seen(self, adata: AnnOrMuData, cells: np.ndarray) -> bool:
        seen = getattr(self, "train_indices", None)
        return adata is self.adata and seen is not None and bool(np.isin(cells, seen).any())

    def _beta_at_work(self) -> float:
        """Return the weight of the rate; NaN where training held the rate at a value instead."""
        is_held = not self.module.held_rate.isnan()
        return float("nan") if is_held else self.module.settled_beta

    def _asked_beta(self) -> float:
        module = self.module
        is_steered = not module.controller.log_beta.isnan()
        history = (getattr(self, "history_", None) or {}).get("beta")
        # a schedule may settle at another share of β than all of it
        has_settled = (
            history is not None and len(history) > 1 and history.iloc[-2:].nunique().item() == 1
        )
        return module.settled_beta if is_steered or has_settled else module.dial.beta
