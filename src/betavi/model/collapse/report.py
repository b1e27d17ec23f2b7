"""Report on the latent space of a model: from all modalities, or from one modality alone."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from scipy import sparse

from betavi import diagnostics
from betavi.data import COUNTS
from betavi.likelihoods import CosineBasis
from betavi.model.collapse.remedies import repair_call, requested_beta
from betavi.model.core.dimensions import (
    FEWEST_TESTED,
    MOST_TESTED,
    encode_tested,
    judged_dimensions,
)
from betavi.module import Probe

if TYPE_CHECKING:
    import pandas as pd
    from scvi._types import AnnOrMuData

    from betavi.diagnostics import Calls, CollapseReport, SignalSpectrum
    from betavi.model.core.latent_model import LatentModel, Tensors

REFINED_CELLS, REFINING_STEPS, REFINED_DRAWS = 128, 100, 16
"""Cells, optimiser steps and draws for the amortisation gap. No benchmark tunes them."""


class View(NamedTuple):
    """Modalities and cells of a report. Other modalities are masked.

    The posteriors of ``cells`` are tested. The directions of signal are estimated on
    ``spectrum_cells``.
    """

    adata: AnnOrMuData
    modalities: list[str]
    cells: np.ndarray
    spectrum_cells: np.ndarray


def report_on(
    model: LatentModel, view: View, rng: np.random.Generator, show_progress: bool
) -> CollapseReport:
    """Diagnose a view at the β in force."""
    residual, total = _spectra(model, view, rng, show_progress)
    view = view._replace(cells=rng.permutation(view.cells)[:MOST_TESTED])
    encoded, minibatches = encode_tested(model, view.adata, view.cells, view.modalities)
    loc, scale = encoded["loc"], encoded["scale"]
    probe = Probe(model.module, minibatches)
    dimensions = judged_dimensions(probe, encoded, show_progress)
    own, prior = probe.distortions()
    explained = {name: prior[name] - own[name] for name in view.modalities}
    gaps = _gaps(model, minibatches[0])
    likelihoods = [model.likelihood(name) for name in view.modalities]
    evidence = diagnostics.Evidence(
        n_latent=len(dimensions),
        n_used=int(dimensions["status"].isin(["used", "unclear"]).sum()),
        beta=model.beta_in_force,
        requested_beta=requested_beta(model),
        held_rate=model.module.held_rate.item(),
        spectrum=residual,
        spectrum_without_covariates=total,
        explained=sum(explained.values()),
        gap=float(gaps.mean()),
        gap_error=float(gaps.std() / np.sqrt(len(gaps))),
        covariates=probe.covariates(),
        excess_noise=_excess_noise(view, probe, residual),
        calls=_calls(model, view),
        n_unclear=int((dimensions["status"] == "unclear").sum()),
        of_images=all(likelihood.of_images for likelihood in likelihoods),
        likelihood_reads_image=all(likelihood.reads_image for likelihood in likelihoods),
    )
    known = model.covariates(view.adata).of(view.cells)
    has_fault = _is_fault(model, view, dimensions)
    return diagnostics.CollapseReport(
        dimensions=dimensions,
        causes=diagnostics.causes_of(evidence) if has_fault else [],
        beta=evidence.beta,
        spectrum=residual,
        rate=float(encoded["rates"].sum(axis=1).mean()),
        distortion=sum(own[name] for name in view.modalities),
        mutual_information=diagnostics.mutual_information(loc, scale),
        amortisation_gap=evidence.gap,
        gap_error=evidence.gap_error,
        explained=explained,
        covariates=evidence.covariates,
        predicted=diagnostics.predicted_from(
            loc, known.categorical | known.labels, known.continuous
        ),
        n_cells=len(view.cells),
        is_held_out=not model.has_seen(view.adata, view.cells),
    )


def _is_whole(model: LatentModel, view: View) -> bool:
    return len(view.modalities) == len(model.modalities)


def _is_fault(model: LatentModel, view: View, dimensions: pd.DataFrame) -> bool:
    """Return True if unused dimensions are a fault.

    In the whole model, any unused dimension is a fault. In one modality, only if all are unused.
    """
    is_unused = dimensions["status"].isin(diagnostics.UNUSED)
    return bool(is_unused.any() if _is_whole(model, view) else is_unused.all())


def _calls(model: LatentModel, view: View) -> Calls:
    """Return the Python code that would repair the model."""
    name = view.modalities[0]
    if name == COUNTS:
        return diagnostics.Calls(repair_call(model))
    weighted = f"JointVI(mdata, modality_weights={{{name!r}: 10.0}})"
    return diagnostics.Calls(
        repair_call(model) if _is_whole(model, view) else weighted,
        "JointVI(mdata, {})",
        f"JointVI.setup_mudata(mdata, likelihoods={{{name!r}: 'poisson', ...}})",
    )


def _gaps(model: LatentModel, tensors: Tensors) -> np.ndarray:
    """Return the amortisation gap of some cells, or NaN if no β weighs the rate."""
    if np.isnan(model.beta_in_force):
        return np.full(1, np.nan)
    few = {k: None if v is None else v[:REFINED_CELLS] for k, v in tensors.items()}
    return Probe(model.module, [few]).amortisation_gap(REFINING_STEPS, REFINED_DRAWS)


def _excess_noise(view: View, probe: Probe, spectrum: SignalSpectrum) -> float:
    """Return the median ratio of the model's variance to the variance outside the directions."""
    if any(probe.module.likelihood(name).of_images for name in view.modalities):
        # the noise of images is judged by band, not by pixel
        return float("nan")
    variances = np.concatenate([probe.variance_ratio(name) for name in view.modalities])
    # the spectrum may cover fewer modalities than the view
    if len(variances) != len(spectrum.noise):
        return float("nan")
    return float(np.nanmedian(variances / spectrum.noise))


def _spectra(
    model: LatentModel, view: View, rng: np.random.Generator, show_progress: bool
) -> tuple[SignalSpectrum, SignalSpectrum]:
    """Return the directions of signal with and without correction for the covariates."""
    view = _measured(model, view)
    cells = np.sort(rng.permutation(view.spectrum_cells)[:MOST_TESTED])
    if model.likelihood(view.modalities[0]).of_images:
        return _image_spectra(model, view, cells, show_progress)
    parts = [sparse.csr_array(model.rows(view.adata, name)[cells]) for name in view.modalities]
    counts = sparse.hstack(parts, format="csr")
    # totals of modalities without a library size are signal, not depth
    sized = [model.likelihood(name).reads_size for name in view.modalities]
    codes = np.where(sized, np.cumsum(sized) - 1, -1)
    assays = np.repeat(codes, [part.shape[1] for part in parts])
    covariates = model.covariates(view.adata).of(cells)
    codes, numbers = covariates.codes, covariates.numbers
    signal_spectrum = diagnostics.signal_spectrum
    total = signal_spectrum(counts, assays=assays, show_progress=show_progress)
    if numbers is None and len(np.unique(codes, axis=0)) == 1:
        return total, total
    residual = signal_spectrum(counts, codes, numbers, assays, show_progress=show_progress)
    return residual, total


def _image_spectra(
    model: LatentModel, view: View, cells: np.ndarray, show_progress: bool
) -> tuple[SignalSpectrum, SignalSpectrum]:
    """Return the spectra of images: of cosine coefficients, whose noise is nearly independent."""
    (name,) = view.modalities
    image = model.image_format(name)
    assert image is not None
    images = torch.as_tensor(model.rows(view.adata, name).dense(cells, np.float32))
    coefficients = CosineBasis(*image.shape)(images).numpy()
    assays = np.full(image.n_pixels, -1)
    covariates = model.covariates(view.adata).of(cells)
    codes, numbers = covariates.codes, covariates.numbers
    spectrum = partial(
        diagnostics.signal_spectrum, coefficients, assays=assays, are_counts=False,
        show_progress=show_progress,
    )  # fmt: skip
    total = spectrum()
    if numbers is None and len(np.unique(codes, axis=0)) == 1:
        return total, total
    return spectrum(codes, numbers), total


def _measured(model: LatentModel, view: View) -> View:
    """Restrict the spectrum to cells with every modality, or to the most frequent modality.

    Images are left out if there are counts: their noise is of another kind.
    """
    of_counts = [name for name in view.modalities if not model.likelihood(name).of_images]
    view = view._replace(modalities=of_counts or view.modalities[:1])
    cells = view.spectrum_cells
    has = {name: model.adapter.has(view.adata, name)[cells] for name in view.modalities}
    has_all = np.all(list(has.values()), axis=0)
    if has_all.sum() >= FEWEST_TESTED:
        return view._replace(spectrum_cells=cells[has_all])
    most = max(has, key=lambda name: int(has[name].sum()))
    return view._replace(modalities=[most], spectrum_cells=cells[has[most]])
