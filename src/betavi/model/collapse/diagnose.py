"""Diagnosis of posterior collapse."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from betavi.model.collapse.report import View, report_on
from betavi.model.core.dimensions import FEWEST_TESTED
from betavi.model.setup.arguments import check_arguments
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
    """Test whether each latent dimension carries signal, and name the causes of collapse.

    Each dimension is tested in two ways. First, cells are decoded with a sample of the prior in
    place of the dimension. This shows if the decoder uses the dimension. Second, data are simulated
    without the signal of the dimension. Genes are split at random into two halves, and the encoder
    reads the data once with the measured counts of the first half, and once with those of the
    second half. If both halves agree about a cell, the dimension carries signal. The report
    compares the result with the directions in the data that a linear theory expects to be active at
    this β.

    With several modalities, the tests use all modalities together, and each modality alone with the
    others masked. A dimension that one modality does not use may belong to another modality, which
    is not a fault. A modality that uses no dimension has collapsed.

    Parameters
    ----------
    adata, indices
        Object, and cells by names, positions or a mask. If both are None, the held-out cells of the
        model's own object. If fewer than 100 cells were held out, all cells. At most 2,000 cells
        are used, drawn at random.
    beta
        Only for a model trained on a range of β: the β to diagnose. If None, the β of the range
        closest to 1.
    seed
        Seed of the cells, draws and shuffles. PyTorch's generator is not changed.
    show_progress
        Show a progress bar for each report.
    modalities
        Modalities with a report of their own. If None, all modalities that at least 20 cells have.

    Returns
    -------
    Verdict, causes, remedies and measurements. Print the report, or draw it with
    :func:`betavi.pl.collapse`. With several modalities, it includes a report on each. If the
    posterior or the prior is a mixture, the column ``kl`` is NaN, because the KL divergence is then
    not a sum over dimensions.

    Raises
    ------
    RuntimeError
        If the model is not trained.
    ValueError
        If the model is deterministic, a modality is unknown, or there are fewer than 20 cells.

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
    check_arguments({"seed": seed})
    model.refuse_minified("diagnose")
    check_can_collapse(model)
    chosen = model.named_modalities(modalities)
    adata = model._validate_anndata(adata)
    names = adata.obs_names
    cells = model.held_out(adata) if indices is None else cells_named(names, indices, "indices")
    if len(cells) < FEWEST_TESTED:
        raise ValueError(
            f"Only {len(cells)} cells were selected, but at least {FEWEST_TESTED} are needed. Pass "
            "more cells as `indices`."
        )
    # the directions of signal do not depend on the choice of cells
    spectrum_cells = np.arange(adata.n_obs) if adata is model.adata or indices is None else cells
    whole = View(adata, model.modalities, cells, spectrum_cells)
    views = {}
    for name in chosen if len(model.modalities) > 1 else []:
        has = model.adapter.has(adata, name)
        view = whole._replace(modalities=[name], cells=cells[has[cells]])
        if len(view.cells) >= FEWEST_TESTED:
            views[name] = view
    with model.seeded(seed), model.at_beta(beta):
        report, *alone = (
            report_on(model, view, np.random.default_rng(seed), show_progress)
            for view in (whole, *views.values())
        )
    return replace(report, modalities=dict(zip(views, alone, strict=True)))


def check_can_collapse(model: LatentModel) -> None:
    """Raise an error if a model is not trained or has no posteriors."""
    model._check_if_trained(warn=False)
    if model.module.latent.is_deterministic:
        raise ValueError(
            "A deterministic autoencoder has no posterior that could collapse. To test for "
            "collapse, train a model with latent_distribution='normal'."
        )
