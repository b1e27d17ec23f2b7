"""How a latent space is looked at: whole, or through some of its modalities."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from scipy import sparse
from scvi.utils import track

from betavi.diagnostics import (
    Calls,
    CollapseReport,
    DimensionArrays,
    Evidence,
    causes_of,
    judge_dimensions,
    mutual_information,
    predicted_from,
    signal_spectrum,
)
from betavi.model.core._transition import Transition
from betavi.model.core.covariates import covariates_of
from betavi.module import Probe

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pandas as pd
    from scvi._types import AnnOrMuData

    from betavi.diagnostics import SignalSpectrum as Spectrum
    from betavi.model.core.covariates import Covariates

MOST_CELLS = 2000
"""Cells that are encoded, of which the spectrum takes time in the square."""

PROBED_CELLS = 500
"""Cells whose dimensions are taken away one by one."""

REFINED_CELLS, REFINING_STEPS, REFINED_DRAWS = 128, 100, 16
CELLS_AT_ONCE = 250
FEWEST_CELLS = 20


class View(NamedTuple):
    """What a diagnosis looks at.

    Parameters
    ----------
    adata
        The object.
    names
        Modalities that are seen; the others are masked.
    judged
        Cells whose posteriors are.
    everyone
        Cells whose directions are.
    """

    adata: AnnOrMuData
    names: tuple[str, ...]
    judged: np.ndarray
    everyone: np.ndarray


class DiagnosisMixin(Transition):
    """The report on a view."""

    def _minibatches(self, view: View) -> Iterable[dict[str, Any]]:
        """Return the judged cells, with what is not seen masked."""
        return self._make_data_loader(view.adata, view.judged, batch_size=CELLS_AT_ONCE)

    def _calls(self, view: View) -> Calls:
        """Return how the model would be mended."""
        return Calls(self._repair())

    def _is_fault(self, view: View, dimensions: pd.DataFrame) -> bool:
        """Say whether there is anything to explain: dimensions that carry no signal."""
        return bool(dimensions["status"].isin(["dead", "noise"]).any())

    def _report(
        self,
        view: View,
        rng: np.random.Generator,
        show_progress: bool,
    ) -> CollapseReport:
        """Diagnose a view."""
        spectra = self._spectra(view, rng, show_progress)
        view = view._replace(judged=rng.permutation(view.judged)[:MOST_CELLS])
        seen, kept = self._encoded(view)
        probe = Probe(self.module, kept)
        dimensions = _dimensions(probe, seen, show_progress)
        own, prior = probe.distortions()
        explained = {name: prior[name] - own[name] for name in view.names}
        gaps = self._gaps(kept[0])
        found = Evidence(
            n_latent=len(dimensions),
            n_used=int(dimensions["status"].isin(["used", "unclear"]).sum()),
            beta=self._beta_at_work(),
            asked_beta=self._asked_beta(),
            held_rate=self.module.held_rate.item(),
            spectrum=spectra[0],
            spectrum_without_covariates=spectra[1],
            explained=sum(explained.values()),
            gap=float(gaps.mean()),
            gap_error=float(gaps.std() / np.sqrt(len(gaps))),
            covariates=probe.covariates(),
            excess_noise=self._excess_noise(view, probe, spectra[0]),
            calls=self._calls(view),
            n_unclear=int((dimensions["status"] == "unclear").sum()),
        )
        known = self._covariates(view.adata).of(view.judged)
        return CollapseReport(
            dimensions=dimensions,
            causes=causes_of(found) if self._is_fault(view, dimensions) else [],
            beta=found.beta,
            spectrum=found.spectrum,
            rate=float(seen["rates"].sum(axis=1).mean()),
            distortion=sum(own[name] for name in view.names),
            mutual_information=mutual_information(seen["loc"], seen["scale"]),
            amortisation_gap=found.gap,
            gap_error=found.gap_error,
            explained=explained,
            covariates=found.covariates,
            predicted=predicted_from(
                seen["loc"], known.categorical | known.labels, known.continuous
            ),
            n_cells=len(view.judged),
            is_held_out=not self._has_seen(view.adata, view.judged),
        )

    def _spectra(
        self, view: View, rng: np.random.Generator, show_progress: bool
    ) -> tuple[Spectrum, Spectrum]:
        """Return the directions in the data, beyond the covariates and at all."""
        manager = self.get_anndata_manager(view.adata, required=True)
        cells = np.sort(rng.permutation(view.everyone)[:MOST_CELLS])
        parts = [sparse.csr_array(manager.rows(name)[cells]) for name in view.names]
        counts = sparse.hstack(parts, format="csr")
        # what reads no library size has none that is a matter of depth
        sized = [self.module.likelihoods[name].reads_size for name in view.names]
        codes = np.where(sized, np.cumsum(sized) - 1, -1)
        assays = np.repeat(codes, [part.shape[1] for part in parts])
        covariates = self._covariates(view.adata).of(cells)
        codes, numbers = covariates.codes, covariates.numbers
        everything = signal_spectrum(counts, assays=assays, show_progress=show_progress)
        if numbers is None and len(np.unique(codes, axis=0)) == 1:
            return everything, everything
        beyond = signal_spectrum(counts, codes, numbers, assays, show_progress=show_progress)
        return beyond, everything

    def _covariates(self, adata: AnnOrMuData) -> Covariates:
        manager = self.get_anndata_manager(adata, required=True)
        return covariates_of(manager, self.registry_["setup_args"])

    def _excess_noise(self, view: View, probe: Probe, spectrum: Spectrum) -> float:
        """Return the variance of the model over that which the directions leave, of most features."""
        variances = np.concatenate([probe.variance_ratio(name) for name in view.names])
        if len(variances) != len(spectrum.noise):
            # the directions are those of some modalities only
            return float("nan")
        return float(np.nanmedian(variances / spectrum.noise))

    def _encoded(self, view: View) -> tuple[dict[str, np.ndarray], list[dict[str, Any]]]:
        """Return the posteriors of all cells, and the first minibatches whole."""
        module, parts = self.module.eval(), []
        kept: list[dict[str, Any]] = []
        for tensors in self._minibatches(view):
            parts.append(Probe(module, [tensors]).posteriors())
            if len(kept) * CELLS_AT_ONCE < PROBED_CELLS:
                kept.append(tensors)
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}, kept

    def _gaps(self, tensors: dict[str, Any]) -> np.ndarray:
        """Return the amortisation gap of some cells; NaN where no β weighs the rate."""
        if np.isnan(self._beta_at_work()):
            return np.full(1, np.nan)
        few = {k: None if v is None else v[:REFINED_CELLS] for k, v in tensors.items()}
        return Probe(self.module, [few]).amortisation_gap(REFINING_STEPS, REFINED_DRAWS)


def _dimensions(probe: Probe, seen: dict[str, np.ndarray], show_progress: bool) -> pd.DataFrame:
    centres = seen["loc"].mean(axis=0)
    bar = track(
        range(len(centres)), description="Taking dimensions away", disable=not show_progress
    )
    found = [probe.without(dimension, centres[dimension]) for dimension in bar]
    losses, halves = (np.stack([part[key] for part in found], -1) for key in ("loss", "halves"))
    n_latent, rates = len(centres), seen["rates"].mean(axis=0)
    rates = rates if len(rates) == n_latent else np.full(n_latent, np.nan)
    return judge_dimensions(DimensionArrays(seen["loc"], seen["scale"], rates, losses, halves))
