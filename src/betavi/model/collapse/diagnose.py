"""Diagnosis of posterior collapse."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from betavi.model.collapse.report import FEWEST_CELLS, View, report_on
from betavi.model.setup.selection import cells_named

if TYPE_CHECKING:
    from collections.abc import Sequence

    from scvi._types import AnnOrMuData

    from betavi.diagnostics import CollapseReport
    from betavi.model.core.latent_model import LatentModel


def diagnose(
    model: LatentModel,
    adata: AnnOrMuData | None = None,
    indices: Sequence[int] | np.ndarray | None = None,
    beta: float | None = None,
    seed: int = 0,
    show_progress: bool = True,
    modalities: Sequence[str] | str | None = None,
) -> CollapseReport:
    """Test each latent dimension for signal, and name the causes if there is none.

    Each dimension is taken away in turn. Cells are decoded with a value of the prior in its place,
    to see if the decoder misses it. The encoder is shown data drawn from the model without its
    signal, with one half of the genes put back or the other, to see if both halves agree about a
    cell, as only signal makes them. The report compares this with the directions that a linear
    theory keeps alive at this β.

    With several modalities the same is done for all of them together, and for each alone with the
    others masked. A dimension that one modality does not use may be another's, which is no fault. A
    modality that uses none at all has collapsed.

    Parameters
    ----------
    adata, indices
        Cells, by names, positions or a mask. If None, cells of the model's own object that were held
        out from training, or all if fewer than 100 were. Of more than 2,000, as many at random.
    beta
        β to answer at, for a model trained on a range of them. If None, 1 or the end of the range
        closest to it.
    seed
        Seed of the cells, draws and shuffles. torch's generator stays as it is.
    show_progress
        Show a progress bar for each report.
    modalities
        Modalities to report on alone, beside the whole; all if None. One that fewer than 20 of the
        cells have is left out.

    Returns
    -------
    Verdict, causes, remedies and the numbers behind them, to ``print`` or draw with
    :func:`betavi.pl.collapse`; with several modalities also a report on each. If the posterior or
    the prior is a mixture, ``kl`` is NaN: it is no sum over dimensions.

    Raises
    ------
    RuntimeError
        If the model is not trained.
    ValueError
        If it is deterministic, a modality is unknown, or there are fewer than 20 cells.

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
    >>> len(report.dimensions), report.verdict in ("healthy", "partial", "unclear", "collapsed")
    (3, True)
    """
    model.refuse_minified("diagnose")
    check_can_collapse(model)
    chosen = model.named_modalities(modalities)
    adata = model._validate_anndata(adata)
    if indices is None:
        cells = model.held_out(adata)
    else:
        cells = cells_named(adata.obs_names, indices, "indices")
    if len(cells) < FEWEST_CELLS:
        raise ValueError(f"A diagnosis takes at least {FEWEST_CELLS} cells, not {len(cells)}.")
    # directions are those of all cells of the model, whichever of them are judged
    everyone = np.arange(adata.n_obs) if adata is model.adata or indices is None else cells
    whole = View(adata, model.modalities, cells, everyone)
    views = {}
    for name in chosen if len(model.modalities) > 1 else []:
        has = model.adapter.has(adata, name)
        view = whole._replace(names=[name], judged=cells[has[cells]])
        if len(view.judged) >= FEWEST_CELLS:
            views[name] = view
    with model.seeded(seed), model.at_beta(beta):
        report, *alone = (
            report_on(model, view, np.random.default_rng(seed), show_progress)
            for view in (whole, *views.values())
        )
    return replace(report, modalities=dict(zip(views, alone, strict=True)))


def check_can_collapse(model: LatentModel) -> None:
    """Refuse a model that is not trained, or has no posteriors."""
    model._check_if_trained(warn=False)
    if model.module.latent.is_deterministic:
        raise ValueError(
            "A deterministic autoencoder has no posterior that could collapse. Train with "
            "latent_distribution='normal' to ask this."
        )
