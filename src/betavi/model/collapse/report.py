"""Report on one view of a latent space: through all modalities of a model, or through one alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy import sparse
from scvi.utils import track

from betavi._blocks import DIAGNOSED_CELLS
from betavi.data import COUNTS
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
from betavi.model.collapse.remedies import repair_call, requested_beta
from betavi.module import Probe

if TYPE_CHECKING:
    import pandas as pd
    from scvi._types import AnnOrMuData

    from betavi.diagnostics import SignalSpectrum
    from betavi.model.core.latent_model import LatentModel, Tensors

MOST_CELLS = 2000
"""Cells that are encoded, of which the spectrum takes time in the square."""

PROBED_CELLS = 500
"""Cells whose dimensions are taken away one by one."""

REFINED_CELLS, REFINING_STEPS, REFINED_DRAWS = 128, 100, 16
FEWEST_CELLS = 20


class View(NamedTuple):
    """Modalities and cells that a report is about.

    All modalities but ``names`` are masked. Posteriors are those of the cells ``judged``, directions
    in the data those of the cells ``everyone``.
    """

    adata: AnnOrMuData
    names: list[str]
    judged: np.ndarray
    everyone: np.ndarray


def report_on(
    model: LatentModel, view: View, rng: np.random.Generator, show_progress: bool
) -> CollapseReport:
    """Diagnose a view, at the β that is set."""
    beyond, everything = _spectra(model, view, rng, show_progress)
    view = view._replace(judged=rng.permutation(view.judged)[:MOST_CELLS])
    seen, kept = _encoded(model, view)
    probe = Probe(model.module, kept)
    dimensions = _dimensions(probe, seen, show_progress)
    own, prior = probe.distortions()
    explained = {name: prior[name] - own[name] for name in view.names}
    gaps = _gaps(model, kept[0])
    evidence = Evidence(
        n_latent=len(dimensions),
        n_used=int(dimensions["status"].isin(["used", "unclear"]).sum()),
        beta=model.beta_in_force,
        requested_beta=requested_beta(model),
        held_rate=model.module.held_rate.item(),
        spectrum=beyond,
        spectrum_without_covariates=everything,
        explained=sum(explained.values()),
        gap=float(gaps.mean()),
        gap_error=float(gaps.std() / np.sqrt(len(gaps))),
        covariates=probe.covariates(),
        excess_noise=_excess_noise(view, probe, beyond),
        calls=_calls(model, view),
        n_unclear=int((dimensions["status"] == "unclear").sum()),
    )
    known = model.covariates(view.adata).of(view.judged)
    return CollapseReport(
        dimensions=dimensions,
        causes=causes_of(evidence) if _is_fault(model, view, dimensions) else [],
        beta=evidence.beta,
        spectrum=beyond,
        rate=float(seen["rates"].sum(axis=1).mean()),
        distortion=sum(own[name] for name in view.names),
        mutual_information=mutual_information(seen["loc"], seen["scale"]),
        amortisation_gap=evidence.gap,
        gap_error=evidence.gap_error,
        explained=explained,
        covariates=evidence.covariates,
        predicted=predicted_from(seen["loc"], known.categorical | known.labels, known.continuous),
        n_cells=len(view.judged),
        is_held_out=not model.has_seen(view.adata, view.judged),
    )


def _is_whole(model: LatentModel, view: View) -> bool:
    return len(view.names) == len(model.modalities)


def _is_fault(model: LatentModel, view: View, dimensions: pd.DataFrame) -> bool:
    """Return whether there is anything to explain.

    A dimension that one modality does not use may be another's.
    """
    is_unused = dimensions["status"].isin(["inactive", "noise"])
    return bool(is_unused.any() if _is_whole(model, view) else is_unused.all())


def _calls(model: LatentModel, view: View) -> Calls:
    """Return the calls that would repair the model."""
    name = view.names[0]
    if name == COUNTS:
        return Calls(repair_call(model))
    weigh = f"JointVI(mdata, modality_weights={{{name!r}: 10.0}})"
    return Calls(
        repair_call(model) if _is_whole(model, view) else weigh,
        "JointVI(mdata, {})",
        f"JointVI.setup_mudata(mdata, likelihoods={{{name!r}: 'poisson', ...}})",
    )


def _encoded(model: LatentModel, view: View) -> tuple[dict[str, np.ndarray], list[Tensors]]:
    """Return the posteriors of all judged cells, and the first minibatches."""
    parts: list[dict[str, np.ndarray]] = []
    kept: list[Tensors] = []
    for tensors in model.minibatches(view.adata, view.judged, DIAGNOSED_CELLS, view.names):
        parts.append(Probe(model.module, [tensors]).posteriors())
        if len(kept) * DIAGNOSED_CELLS < PROBED_CELLS:
            kept.append(tensors)
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}, kept


def _gaps(model: LatentModel, tensors: Tensors) -> np.ndarray:
    """Return the amortisation gap of some cells; NaN where no β weighs the rate."""
    if np.isnan(model.beta_in_force):
        return np.full(1, np.nan)
    few = {k: None if v is None else v[:REFINED_CELLS] for k, v in tensors.items()}
    return Probe(model.module, [few]).amortisation_gap(REFINING_STEPS, REFINED_DRAWS)


def _dimensions(probe: Probe, seen: dict[str, np.ndarray], show_progress: bool) -> pd.DataFrame:
    """Take the dimensions away one by one, and judge each."""
    centres = seen["loc"].mean(axis=0)
    bar = track(range(len(centres)), "Taking dimensions away", disable=not show_progress)
    found = [probe.without(dimension, centres[dimension]) for dimension in bar]
    losses, halves = (np.stack([part[key] for part in found], -1) for key in ("loss", "halves"))
    n_latent, rates = len(centres), seen["rates"].mean(axis=0)
    rates = rates if len(rates) == n_latent else np.full(n_latent, np.nan)
    return judge_dimensions(DimensionArrays(seen["loc"], seen["scale"], rates, losses, halves))


def _excess_noise(view: View, probe: Probe, spectrum: SignalSpectrum) -> float:
    """Return the variance of the model over that which the directions leave, of most features."""
    variances = np.concatenate([probe.variance_ratio(name) for name in view.names])
    if len(variances) != len(spectrum.noise):
        # the directions are those of some modalities only
        return float("nan")
    return float(np.nanmedian(variances / spectrum.noise))


def _spectra(
    model: LatentModel, view: View, rng: np.random.Generator, show_progress: bool
) -> tuple[SignalSpectrum, SignalSpectrum]:
    """Return the directions in the data, beyond the covariates and at all."""
    view = _measured(model, view)
    cells = np.sort(rng.permutation(view.everyone)[:MOST_CELLS])
    parts = [sparse.csr_array(model.rows(view.adata, name)[cells]) for name in view.names]
    counts = sparse.hstack(parts, format="csr")
    # without a library size, totals are no matter of depth
    sized = [model.likelihood(name).reads_size for name in view.names]
    codes = np.where(sized, np.cumsum(sized) - 1, -1)
    assays = np.repeat(codes, [part.shape[1] for part in parts])
    covariates = model.covariates(view.adata).of(cells)
    codes, numbers = covariates.codes, covariates.numbers
    everything = signal_spectrum(counts, assays=assays, show_progress=show_progress)
    if numbers is None and len(np.unique(codes, axis=0)) == 1:
        return everything, everything
    beyond = signal_spectrum(counts, codes, numbers, assays, show_progress=show_progress)
    return beyond, everything


def _measured(model: LatentModel, view: View) -> View:
    """Return the cells that have every modality, or the modality that most cells have."""
    has = {name: model.adapter.has(view.adata, name)[view.everyone] for name in view.names}
    has_all = np.all(list(has.values()), axis=0)
    if has_all.sum() >= FEWEST_CELLS:
        return view._replace(everyone=view.everyone[has_all])
    most = max(has, key=lambda name: int(has[name].sum()))
    return view._replace(names=[most], everyone=view.everyone[has[most]])
