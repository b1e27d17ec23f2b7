"""Verdict on a latent space, with reasons."""

from __future__ import annotations

from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from betavi.diagnostics.information import MOST_CELLS

if TYPE_CHECKING:
    from betavi.diagnostics.causes import Cause
    from betavi.diagnostics.spectrum import SignalSpectrum


@dataclass(frozen=True)
class CollapseReport:
    """Signal in each latent dimension, a verdict, and causes of collapse. Nats are per cell.

    Parameters
    ----------
    dimensions
        See :func:`judge_dimensions`.
    causes
        Causes of unused dimensions, the likeliest first; empty if all are used.
    beta, rate, distortion
        The terms of the ELBO and the weight of the rate, NaN if training held the rate at a value.
    spectrum
        Directions in which the cells differ, beyond covariates.
    mutual_information
        Information between a cell and its position (Hoffman & Johnson, 2016, ELBO surgery).
    amortisation_gap, gap_error
        Nats that posteriors refined cell by cell save (Cremer et al., 2018, Inference suboptimality
        in variational autoencoders), and the standard error.
    explained, covariates
        Nats that z saves against a z of the prior, by modality, and that the decoder's covariates
        save against those of another cell.
    predicted, modalities
        Prediction of each covariate from z, see :func:`predicted_from`, and, in a joint model, the
        report on each modality with all others masked.
    n_cells, is_held_out
        Number of cells used, and True if training had not seen them.

    Examples
    --------
    >>> import betavi
    >>> adata = betavi.datasets.simulate_counts(n_cells=200, n_genes=20)
    >>> betavi.BetaVI.setup_anndata(adata)
    >>> model = betavi.BetaVI(adata, n_latent=2)
    >>> model.train(max_epochs=1, enable_progress_bar=False)
    >>> report = model.diagnose(show_progress=False)
    >>> report.n_cells, report.is_held_out, len(report.dimensions)
    (200, False, 2)
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
    def dead_dimensions(self) -> list[int]:
        """Dimensions that carry nothing."""
        return self._dimensions_of("dead")

    @property
    def noise_dimensions(self) -> list[int]:
        """Dimensions that carry noise only."""
        return self._dimensions_of("noise")

    @property
    def unclear_dimensions(self) -> list[int]:
        """Dimensions that need more cells for a judgement."""
        return self._dimensions_of("unclear")

    def _dimensions_of(self, status: str) -> list[int]:
        return self.dimensions.index[self.dimensions["status"] == status].tolist()

    @property
    def verdict(self) -> str:
        """``"healthy"``, ``"partial"``, ``"collapsed"`` or ``"unclear"``.

        Healthy: no dimension is collapsed or noise. Partial: some are, or a modality is ignored.
        Collapsed: all are. Unclear: no dimension is used for sure, and some may be.
        """
        n_unused = len(self.dead_dimensions) + len(self.noise_dimensions)
        if n_unused == len(self.dimensions):
            return "collapsed"
        if not self.active_dimensions:
            return "unclear"
        return "partial" if n_unused or self.ignored_modalities else "healthy"

    @property
    def ignored_modalities(self) -> list[str]:
        """Modalities that, alone, use no dimension."""
        return [name for name, alone in self.modalities.items() if alone.verdict == "collapsed"]

    def by_modality(self) -> pd.DataFrame:
        """Return what z explains of each modality, jointly and given it alone, nats per cell."""
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
        """Remedies of the causes, also of those of ignored modalities."""
        ignored = [self.modalities[name] for name in self.ignored_modalities]
        return [cause.remedy for report in (self, *ignored) for cause in report.causes]

    @property
    def marginal_kl(self) -> float:
        """KL of the mean posterior from the prior; an upper bound if ``is_saturated``."""
        return self.rate - self.mutual_information

    @property
    def is_saturated(self) -> bool:
        """True if the mutual information is within a nat of its largest possible estimate."""
        return bool(self.mutual_information > np.log(min(self.n_cells, MOST_CELLS)) - 1)

    @property
    def explained_share(self) -> float:
        """Share of the distortion at a z of the prior that the cell's own z saves."""
        saved = sum(self.explained.values())
        return saved / (self.distortion + saved)

    def summary(self) -> pd.Series:
        """Return the numbers of the whole latent space."""
        at_least, at_most = (", at least", ", at most") if self.is_saturated else ("", "")
        numbers = {
            "used dimensions": self.active_dimensions,
            "dead dimensions": len(self.dead_dimensions),
            "dimensions of noise": len(self.noise_dimensions),
            "directions in the data": self.spectrum.n_factors,
            "directions alive in theory": self.spectrum.alive_at(self.beta),
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
        n_latent = len(self.dimensions)
        head = f"{self.verdict}: {self.active_dimensions} of {n_latent} dimensions are used"
        for words, which in (
            ("dead are", self.dead_dimensions), ("noise is in", self.noise_dimensions),
            ("unclear are", self.unclear_dimensions),
        ):  # fmt: skip
            head += f", {words} {', '.join(map(str, which))}" if which else ""
        ignored = self.ignored_modalities
        if ignored:
            head += f"; {', '.join(ignored)} {'are' if len(ignored) > 1 else 'is'} ignored"
        reasons = [*map(str, self.causes), *self._of_modalities(), *self._cautions()]
        parts = [f"{head}.", *(f"- {reason}" for reason in reasons)]
        parts += ["", self.summary().round(3).to_string()]
        if self.modalities:
            parts += ["", "By modality:", self.by_modality().round(3).to_string()]
        if len(self.predicted):
            parts += ["", "What z predicts:", self.predicted.round(3).to_string()]
        return "\n".join(parts)

    def _of_modalities(self) -> list[str]:
        """Return the causes of ignored modalities."""
        return [
            f"{name}: {cause}"
            for name in self.ignored_modalities
            for cause in self.modalities[name].causes
        ]

    def _cautions(self) -> list[str]:
        cautions = []
        if self.unclear_dimensions:
            cautions.append(
                f"{self.n_cells} cells are too few to tell signal from noise everywhere: hold more "
                "out, with a smaller train(train_size=...), or name cells the model has not seen, "
                "diagnose(indices=...)."
            )
        if not self.is_held_out:
            cautions.append(
                "These cells were trained on, and a model knows their noise: dimensions that seem "
                "used may not be. Hold cells out, or name others: diagnose(indices=...)."
            )
        return cautions

    def _repr_html_(self) -> str:
        head = str(self).split("\n", maxsplit=1)[0]
        reasons = "".join(
            f"<li><b>{cause.name}</b>: {escape(cause.evidence)}"
            f"<br><code>{escape(cause.remedy)}</code></li>"
            for cause in self.causes
        )
        notes = [*self._of_modalities(), *self._cautions()]
        reasons += "".join(f"<li>{escape(note)}</li>" for note in notes)
        summary = self.summary().to_frame()
        tables = (summary, self.by_modality(), self.predicted, self.dimensions)
        shown = "".join(table.round(3).to_html() for table in tables if len(table))
        return f"<p><b>{head}</b></p><ul>{reasons}</ul>{shown}"
