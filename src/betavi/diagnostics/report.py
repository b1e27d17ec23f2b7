"""Report on collapse: a verdict on the latent space, with causes and remedies."""

from __future__ import annotations

from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from betavi.diagnostics.collapse import UNUSED
from betavi.diagnostics.information import MOST_CELLS

if TYPE_CHECKING:
    from betavi.diagnostics.causes import Cause
    from betavi.diagnostics.spectrum import SignalSpectrum


@dataclass(frozen=True)
class CollapseReport:
    """Signal in each latent dimension, a verdict, and causes of collapse. All nats are per cell.

    Parameters
    ----------
    dimensions
        Table of :func:`judge_dimensions`.
    causes
        Causes of unused dimensions, most likely first. Empty if all dimensions are used.
    beta
        Weight of the rate. NaN if training kept the rate constant.
    rate
        Rate (KL divergence from the prior), nats.
    distortion
        Negative log-likelihood, nats.
    spectrum
        Directions in which cells differ, after correction for covariates.
    mutual_information
        Information between a cell and its latent position (Hoffman & Johnson, 2016, ELBO surgery),
        nats.
    amortisation_gap
        How much lower the loss is if the posterior of each cell is optimised separately (Cremer et
        al., 2018, Inference suboptimality in variational autoencoders), nats.
    gap_error
        Standard error of ``amortisation_gap``.
    explained
        How much lower the reconstruction loss is with the cell's own z than with a z from the
        prior, nats, by modality.
    covariates
        How much lower the reconstruction loss is with the cell's own covariates than with those of
        another cell, nats.
    predicted
        Table of :func:`predicted_from`.
    modalities
        For a joint model: one report per modality, with all other modalities masked.
    n_cells
        Number of cells.
    is_held_out
        True if training did not use these cells.

    Examples
    --------
    >>> import betavi
    >>> adata = betavi.datasets.simulate_counts(n_cells=200, n_genes=20)
    >>> betavi.BetaVI.setup_anndata(adata)
    >>> model = betavi.BetaVI(adata, n_latent=2)
    >>> model.train(max_epochs=1, enable_progress_bar=False)
    >>> model.diagnose(show_progress=False).is_held_out
    False
    """

    dimensions: pd.DataFrame
    causes: list[Cause]
    beta: float
    spectrum: SignalSpectrum
    rate: float
    distortion: float
    mutual_information: float
    amortisation_gap: float
    gap_error: float
    explained: dict[str, float]
    covariates: float
    predicted: pd.DataFrame
    n_cells: int
    is_held_out: bool
    modalities: dict[str, CollapseReport] = field(default_factory=dict)

    @property
    def active_dimensions(self) -> int:
        """Number of dimensions that carry signal."""
        return int((self.dimensions["status"] == "used").sum())

    @property
    def inactive_dimensions(self) -> list[int]:
        """Dimensions that carry no information about cells."""
        return self._dimensions_of("inactive")

    @property
    def noise_dimensions(self) -> list[int]:
        """Dimensions that carry only noise."""
        return self._dimensions_of("noise")

    @property
    def depth_dimensions(self) -> list[int]:
        """Dimensions that carry only the total count of a cell."""
        return self._dimensions_of("depth")

    @property
    def unclear_dimensions(self) -> list[int]:
        """Dimensions for which the cells are too few to decide."""
        return self._dimensions_of("unclear")

    def _dimensions_of(self, status: str) -> list[int]:
        return self.dimensions.index[self.dimensions["status"] == status].tolist()

    @property
    def verdict(self) -> str:
        """``"healthy"``, ``"partial"``, ``"collapsed"`` or ``"unclear"``.

        Healthy: no dimension is inactive, noise or depth. Partial: some dimensions are, or a
        modality is ignored. Collapsed: all dimensions are inactive, noise or depth. Unclear: some
        dimensions may be used, but no dimension is used with certainty.
        """
        n_unused = int(self.dimensions["status"].isin(UNUSED).sum())
        if n_unused == len(self.dimensions):
            return "collapsed"
        if not self.active_dimensions:
            return "unclear"
        return "partial" if n_unused or self.ignored_modalities else "healthy"

    @property
    def ignored_modalities(self) -> list[str]:
        """Modalities that use no dimension when all others are masked."""
        return [name for name, alone in self.modalities.items() if alone.verdict == "collapsed"]

    def by_modality(self) -> pd.DataFrame:
        """Return the signal in each modality, together with the others and alone, nats per cell."""
        rows = {
            name: {
                "used dimensions": alone.active_dimensions,
                "directions in the data": alone.spectrum.n_factors,
                "information": alone.mutual_information,
                "explained": self.explained[name],
                "explained alone": alone.explained[name],
                "amortisation gap": alone.amortisation_gap,
                "cells": alone.n_cells,
            }
            for name, alone in self.modalities.items()
        }
        return pd.DataFrame.from_dict(rows, orient="index")

    @property
    def remedies(self) -> list[str]:
        """Remedies of all causes, including those of ignored modalities."""
        ignored = [self.modalities[name] for name in self.ignored_modalities]
        return [cause.remedy for report in (self, *ignored) for cause in report.causes]

    @property
    def marginal_kl(self) -> float:
        """KL divergence of the mean posterior from the prior.

        An upper bound if ``is_saturated``.
        """
        return self.rate - self.mutual_information

    @property
    def is_saturated(self) -> bool:
        """True if the mutual information is within 1 nat of its largest possible estimate."""
        return bool(self.mutual_information > np.log(min(self.n_cells, MOST_CELLS)) - 1)

    @property
    def explained_share(self) -> float:
        """Relative decrease in distortion from a z of the prior to the cell's own z."""
        saved = sum(self.explained.values())
        return saved / (self.distortion + saved)

    def summary(self) -> pd.Series:
        """Return the numbers for the whole latent space."""
        at_least, at_most = (", at least", ", at most") if self.is_saturated else ("", "")
        numbers = {
            "used dimensions": self.active_dimensions,
            "inactive dimensions": len(self.inactive_dimensions),
            "noise dimensions": len(self.noise_dimensions),
            "depth dimensions": len(self.depth_dimensions),
            "directions in the data": self.spectrum.n_factors,
            "directions active in theory": self.spectrum.active_at(self.beta),
            "β": self.beta,
            "rate, nats": self.rate,
            f"mutual information, nats{at_least}": self.mutual_information,
            f"marginal KL, nats{at_most}": self.marginal_kl,
            "amortisation gap, nats": self.amortisation_gap,
            "explained by z, nats": sum(self.explained.values()),
            "explained by z, share": self.explained_share,
            "explained by covariates, nats": self.covariates,
        }
        return pd.Series(numbers, name=self.verdict)

    def __str__(self) -> str:
        used = f"{self.active_dimensions} of {len(self.dimensions)} dimensions are used."
        head = f"{self.verdict}: {used}"
        for status in (*UNUSED, "unclear"):
            if which := self._dimensions_of(status):
                head += f" {status.capitalize()}: {', '.join(map(str, which))}."
        if ignored := self.ignored_modalities:
            head += f" Ignored modalities: {', '.join(ignored)}."
        parts = [head, *(f"- {note}" for note in (*map(str, self.causes), *self._notes()))]
        parts += ["", self.summary().round(3).to_string()]
        if self.modalities:
            parts += ["", "By modality:", self.by_modality().round(3).to_string()]
        if len(self.predicted):
            parts += ["", "Prediction of covariates from z:", self.predicted.round(3).to_string()]
        return "\n".join(parts)

    def _notes(self) -> list[str]:
        """Return the causes of ignored modalities, and warnings about the cells."""
        ignored = {name: self.modalities[name] for name in self.ignored_modalities}
        notes = [f"{name}: {cause}" for name, alone in ignored.items() for cause in alone.causes]
        if self.unclear_dimensions:
            notes.append(
                f"{self.n_cells} cells are too few to separate signal from noise in all dimensions. "
                "Hold out more cells with a smaller train(train_size=...), or pass cells that the "
                "model has not seen: diagnose(indices=...)."
            )
        if not self.is_held_out:
            notes.append(
                "The model was trained on these cells and may have memorised their noise, so that "
                "noise dimensions seem used. Hold out cells, or pass cells that the model has not "
                "seen: diagnose(indices=...)."
            )
        return notes

    def _repr_html_(self) -> str:
        head = str(self).split("\n", maxsplit=1)[0]
        items = [
            f"<b>{cause.name}</b>: {escape(cause.evidence)}<br><code>{escape(cause.remedy)}</code>"
            for cause in self.causes
        ]
        listed = "".join(f"<li>{item}</li>" for item in (*items, *map(escape, self._notes())))
        tables = (self.summary().to_frame(), self.by_modality(), self.predicted, self.dimensions)
        shown = "".join(table.round(3).to_html() for table in tables if len(table))
        return f"<p><b>{head}</b></p><ul>{listed}</ul>{shown}"
