"""Whether the latent space of a model is alive."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scvi.utils import track, unsupported_if_adata_minified

from betavi.diagnostics import (
    CollapseReport,
    DimensionArrays,
    Evidence,
    causes_of,
    judge_dimensions,
    mutual_information,
    predicted_from,
    signal_spectrum,
)
from betavi.model.at_beta import AtBetaMixin
from betavi.model.covariates import covariates_of
from betavi.module import Probe
from betavi.module.single import COUNTS
from betavi.train import Rows

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import pandas as pd
    from anndata import AnnData

    from betavi.diagnostics import SignalSpectrum as Spectrum
    from betavi.model.covariates import Covariates

MOST_CELLS = 2000
"""Cells that are encoded, of which the spectrum takes time in the square."""

PROBED_CELLS = 500
"""Cells whose dimensions are taken away one by one."""

REFINED_CELLS, REFINING_STEPS, REFINED_DRAWS = 128, 100, 16
CELLS_AT_ONCE = 250
FEWEST_CELLS, ENOUGH_HELD_OUT = 20, 100


class DiagnoseMixin(AtBetaMixin):
    """Posterior collapse, seen and explained."""

    @unsupported_if_adata_minified
    def diagnose(
        self,
        adata: AnnData | None = None,
        indices: Sequence[int] | None = None,
        beta: float | None = None,
        seed: int = 0,
        show_progress: bool = True,
    ) -> CollapseReport:
        """Say whether the latent space is alive, dimension by dimension, and if not, why.

        Every dimension is taken away in turn: cells are decoded with a value of the prior in its
        place, to see whether the decoder misses it; and the encoder is shown data drawn from the
        model without its signal, with one half of the genes put back or the other, to see whether
        both say the same of a cell, as only signal makes them. The directions in the data that a
        linear theory keeps alive at this β are set beside that.

        Parameters
        ----------
        adata, indices
            Which cells; of the model's own those held out in training, or all where these are fewer
            than 100, if None. Of more than 2,000, as many at random.
        beta
            Which β to ask a model of many about; see :meth:`get_latent_representation`.
        seed
            Of the cells, draws and shuffles. The generator of torch is left as it was.
        show_progress
            Show a bar.

        Returns
        -------
        Verdict, causes, remedies and the numbers behind them. ``print`` it, or let a notebook show
        it; :func:`betavi.pl.collapse` draws it.

        Raises
        ------
        ValueError
            If the model is not trained, is deterministic, or there are fewer than 20 cells.

        References
        ----------
        Lucas et al. (2019), Don't blame the ELBO! Burda et al. (2016), Importance weighted
        autoencoders. Hoffman & Johnson (2016), ELBO surgery. Cremer et al. (2018), Inference
        suboptimality in variational autoencoders.

        Examples
        --------
        >>> import betavi
        >>> adata = betavi.datasets.simulate_counts(n_cells=200, n_genes=20)
        >>> betavi.BetaVI.setup_anndata(adata)
        >>> model = betavi.BetaVI(adata, n_latent=3)
        >>> model.train(max_epochs=2, enable_progress_bar=False)
        >>> report = model.diagnose(show_progress=False)
        >>> len(report.dimensions), report.verdict in ("healthy", "partial", "collapsed")
        (3, True)
        """
        self._refuse_to_diagnose()
        adata = self._validate_anndata(adata)
        rng = np.random.default_rng(seed)
        judged = self._cells_to_judge(adata) if indices is None else np.asarray(indices)
        # the directions are those of all cells that the model is of, whichever of them are judged
        everyone = np.arange(adata.n_obs) if adata is self.adata or indices is None else judged
        if len(judged) < FEWEST_CELLS:
            raise ValueError(f"A diagnosis takes at least {FEWEST_CELLS} cells, not {len(judged)}.")
        with self._own_draws(seed), self._at(beta):
            spectra = self._spectra(adata, rng.permutation(everyone)[:MOST_CELLS])
            judged = rng.permutation(judged)[:MOST_CELLS]
            return self._report(adata, judged, spectra, show_progress)

    @contextmanager
    def _own_draws(self, seed: int) -> Iterator[None]:
        """Draw from a seed, and leave torch's generators as they were."""
        with torch.random.fork_rng(range(torch.cuda.device_count())):
            torch.manual_seed(seed)
            yield

    def _cells_to_judge(self, adata: AnnData) -> np.ndarray:
        """Return cells that training has not seen, if there are enough."""
        held_out = getattr(self, "validation_indices", None)
        is_enough = held_out is not None and len(held_out) >= ENOUGH_HELD_OUT
        if is_enough and self._was_split(adata):
            return np.asarray(held_out)
        return np.arange(adata.n_obs)

    def _was_split(self, adata: AnnData) -> bool:
        """Say whether these are the cells that training was split into.

        A loaded model may have been given others: of as many, there is no telling.
        """
        parts = [getattr(self, f"{part}_indices", None) for part in ("train", "validation", "test")]
        was_trained_here = hasattr(self, "trainer")
        split = np.concatenate([part for part in parts if part is not None])
        return adata is self.adata and (was_trained_here or len(split) == adata.n_obs)

    def _has_seen(self, adata: AnnData, cells: np.ndarray) -> bool:
        seen = getattr(self, "train_indices", None)
        return adata is self.adata and seen is not None and bool(np.isin(cells, seen).any())

    def _refuse_to_diagnose(self) -> None:
        if not self.is_trained:
            raise ValueError("The model is not trained: its latent space says nothing yet.")
        if self.module.latent.has_no_rate:
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

    def _spectra(self, adata: AnnData, cells: np.ndarray) -> tuple[Spectrum, Spectrum]:
        """Return the directions in the data, beyond the covariates and at all."""
        cells = np.sort(cells)
        manager = self.get_anndata_manager(adata, required=True)
        counts = Rows(manager.get_from_registry(COUNTS))[cells]
        covariates = self._covariates(adata).of(cells)
        codes, numbers = covariates.codes, covariates.numbers
        everything = signal_spectrum(counts)
        if numbers is None and len(np.unique(codes, axis=0)) == 1:
            return everything, everything
        return signal_spectrum(counts, codes, numbers), everything

    def _covariates(self, adata: AnnData) -> Covariates:
        manager = self.get_anndata_manager(adata, required=True)
        return covariates_of(manager, self.registry_["setup_args"])

    def _report(
        self,
        adata: AnnData,
        cells: np.ndarray,
        spectra: tuple[Spectrum, Spectrum],
        show_progress: bool,
    ) -> CollapseReport:
        seen, kept = self._encoded(adata, cells)
        probe = Probe(self.module, kept)
        dimensions = _dimensions(probe, seen, show_progress)
        own, prior = probe.distortions()
        explained = {name: prior[name] - own[name] for name in own}
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
            repair=self._repair(),
            excess_noise=float(np.nanmedian(probe.variance_ratio(COUNTS) / spectra[0].noise)),
        )
        is_unused = dimensions["status"].isin(["dead", "noise"])
        known = self._covariates(adata).of(cells)
        return CollapseReport(
            dimensions=dimensions,
            causes=causes_of(found) if is_unused.any() else [],
            beta=found.beta,
            spectrum=found.spectrum,
            rate=float(seen["rates"].sum(axis=1).mean()),
            distortion=sum(own.values()),
            mutual_information=mutual_information(seen["loc"], seen["scale"]),
            amortisation_gap=found.gap,
            gap_error=found.gap_error,
            explained=explained,
            covariates=found.covariates,
            predicted=predicted_from(
                seen["loc"], known.categorical | known.labels, known.continuous
            ),
            n_cells=len(cells),
            is_held_out=not self._has_seen(adata, cells),
        )

    def _encoded(
        self, adata: AnnData, cells: np.ndarray
    ) -> tuple[dict[str, np.ndarray], list[dict[str, Any]]]:
        """Return the posteriors of all cells, and the first minibatches whole."""
        module, parts = self.module.eval(), []
        kept: list[dict[str, Any]] = []
        for tensors in self._make_data_loader(adata, cells, batch_size=CELLS_AT_ONCE):
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
