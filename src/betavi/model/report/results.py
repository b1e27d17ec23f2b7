"""Request of a report, and results that several sections read."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from betavi.diagnostics.trust import is_falling

if TYPE_CHECKING:
    from scvi._types import AnnOrMuData

    from betavi.diagnostics import CollapseReport, DenoisingReport

FEWEST_HELD_OUT = 24
"""Smallest number of held-out cells whose counts are scored. Not tuned."""


@dataclass
class Results:
    """Model and arguments of a report. Results are computed when a section first reads them.

    ``model`` is a trained model with its methods. ``cells`` is the object whose cells are judged, or
    None for the model's own object.
    """

    model: Any
    cells: AnnOrMuData | None = None
    labels_key: str | None = None
    condition_key: str | None = None
    seed: int = 0
    show_progress: bool = True

    @property
    def quiet(self) -> dict[str, bool]:
        """Argument of methods that have a progress bar."""
        return {"show_progress": self.show_progress}

    @property
    def setup_args(self) -> dict[str, Any]:
        """Arguments of the setup of the model's object."""
        found: dict[str, Any] = self.model.registry_["setup_args"]
        return found

    @cached_property
    def diagnosis(self) -> CollapseReport:
        """Diagnosis of collapse."""
        found: CollapseReport = self.model.diagnose(seed=self.seed, **self.quiet)
        return found

    @property
    def has_signal(self) -> bool:
        """False if no latent dimension carries signal. True if this cannot be diagnosed."""
        try:
            return bool(self.diagnosis.spectrum.n_factors and self.diagnosis.verdict != "collapsed")
        except (ValueError, RuntimeError):
            return True

    @cached_property
    def denoising(self) -> dict[str, DenoisingReport]:
        """Molecular cross-validation, by modality."""
        found = self.model.cross_validate_denoising(seed=self.seed, **self.quiet)
        return dict(self.model.adapter.by_modality(found))

    @property
    def is_falling(self) -> bool:
        """True if the loss of training cells was still falling at the end. False without a history."""
        history = getattr(self.model, "history_", None) or {}
        return "elbo_train" in history and is_falling(
            history["elbo_train"].iloc[:, 0].astype(float).dropna().to_numpy()
        )

    def some_of(self, cells: np.ndarray, most: int) -> np.ndarray:
        """Return at most ``most`` of the cells, drawn at random, in ascending order."""
        return np.sort(np.random.default_rng(self.seed).permutation(cells)[:most])

    def held_out(self) -> np.ndarray:
        """Return the held-out cells. Raises a ValueError if there are too few."""
        found = getattr(self.model, "validation_indices", None)
        if found is None or len(found) < FEWEST_HELD_OUT:
            n_cells = 0 if found is None else len(found)
            raise ValueError(
                f"Only {n_cells} cells were held out from training, but at least {FEWEST_HELD_OUT} are "
                "needed. Train with train(train_size=0.9)."
            )
        return np.asarray(found)
