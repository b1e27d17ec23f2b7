"""Meaning of each latent dimension: genes, nats, labels and covariates."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from betavi.diagnostics import (
    ExplainedDimensions,
    gene_tables,
    label_information,
    variance_explained,
)
from betavi.model.core.beta import takes_beta
from betavi.model.core.density import posteriors
from betavi.model.core.dimensions import FEWEST_TESTED
from betavi.model.dimensions.effects import effects_of_steps, steps_among
from betavi.model.dimensions.labels import labels_of
from betavi.model.dimensions.nats import nats_of_dimensions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from scvi._types import AnnOrMuData

    from betavi.model.core.latent_model import LatentModel

MOST_CELLS = 20_000
"""Largest number of cells whose positions are summarised. Not tuned."""

FEWEST_LABELLED = 20
"""Smallest number of cells of a label that can be the best label of a dimension. Not tuned."""


@takes_beta
def explain_dimensions(
    model: LatentModel,
    adata: AnnOrMuData | None = None,
    indices: Sequence[int] | np.ndarray | None = None,
    labels_key: str | None = None,
    n_cells: int = 500,
    n_genes: int | None = 20,
    modalities: Sequence[str] | str | None = None,
    seed: int = 0,
    show_progress: bool = True,
) -> ExplainedDimensions:
    """Explain each latent dimension: the genes that it changes, its nats, labels and covariates.

    A step along a dimension leads from its median among the cells to its 99 % quantile (sign
    ``"+"``) or to its 1 % quantile (sign ``"-"``). Cells are decoded at both ends of the step. Their
    other dimensions stay at the posterior mean, and batch and covariates are their own. Genes are
    listed for the sign with which they rise. Only dimensions with the status ``"used"`` have genes.
    The tests of the status are those of :meth:`diagnose`.

    Parameters
    ----------
    adata, indices
        Object, and cells by names, positions or a mask. If both are None, all cells of the model's
        own object. Nats and statuses are then measured on its held-out cells, or on all cells if
        fewer than 100 were held out.
    labels_key
        Column of ``obs`` with labels, such as cell types. Cells without a label are left out.
    n_cells
        Number of cells, drawn at random, over which effects on genes are averaged.
    n_genes
        Largest number of genes listed for each dimension, sign and modality: those that rise most
        along the step. None lists all genes.
    modalities
        Modalities whose genes are listed. If None, all modalities.
    seed
        Seed of the cells and draws. PyTorch's generator is not changed.
    show_progress
        Show progress bars.

    Returns
    -------
    An :class:`betavi.diagnostics.ExplainedDimensions` with two tables, ``dimensions`` and ``genes``.
    Draw it with :func:`betavi.pl.dimensions`.

    Columns of ``dimensions``, in nats per cell where not noted:

    - ``status``: ``"used"``, ``"inactive"``, ``"noise"``, ``"depth"`` or ``"unclear"``;
    - ``rate``: KL divergence of the dimension from the prior, and ``rate_share``, its share of the
      rate. NaN if the rate is not a sum over dimensions, or the model is deterministic;
    - ``information``: information of the dimension alone about a cell. NaN for a deterministic model;
    - ``distortion_increase``: how much worse the counts are reconstructed if the dimension is set to
      its mean in all cells, and ``distortion_increase_error``, its standard error. With several
      modalities, also by modality;
    - ``low``, ``median``, ``high``: quantiles of the dimension, the ends of the steps;
    - ``label`` and ``label_information``: the label that the dimension separates best, and its
      information about membership in this label, divided by the entropy of the membership. Labels
      with fewer than 20 cells do not compete, because their information by chance is high. NaN if
      no label has 20 cells;
    - ``explained_by_batch`` and so on: share of the variance that a registered covariate explains.

    Columns of ``genes``:

    - ``dimension``, ``sign``, ``modality`` and ``gene``;
    - ``log2_fold_change`` of normalised expression by the step, averaged over cells. For proteins,
      of the expected foreground; for chromatin, of the rate of fragments;
    - ``sd_between_cells``: standard deviation of the fold change between cells. It is 0 if the
      effect does not depend on the other dimensions. A shift of all genes of a cell together,
      which keeps the sum of normalised expression at 1, does not count;
    - ``standard_error``: sampling error of the mean over cells. The weights of the networks are
      fixed, so the error does not contain the differences between two trainings;
    - ``log2_count_change``: mean change of log2(expected count + 1), and ``rank``, the rank of the
      gene by it. The 1 keeps genes without notable expression from the top.

    Raises
    ------
    RuntimeError
        If the model is not trained.
    KeyError
        If ``labels_key`` is not a column of ``obs``.
    ValueError
        If there are fewer than 20 cells or two labels, or the object is minified.

    References
    ----------
    Moinfar & Theis (2024), Unsupervised deep disentangled representation of single-cell omics.

    Examples
    --------
    >>> import betavi
    >>> adata = betavi.datasets.simulate_counts(n_cells=400, n_genes=50)
    >>> betavi.BetaVI.setup_anndata(adata, batch_key="batch")
    >>> model = betavi.BetaVI(adata, n_latent=3)
    >>> model.train(max_epochs=2, enable_progress_bar=False)
    >>> explained = model.explain_dimensions(labels_key="cell_type", show_progress=False)
    >>> explained.dimensions["label_information"].between(0, 1).tolist()
    [True, True, True]
    """
    model.refuse_minified("explain_dimensions")
    chosen = model.named_modalities(modalities)
    remedy = "Pass other `modalities`. To see a dimension of images, use `interpolate`."
    model.refuse_images("explain_dimensions", remedy, chosen)
    data = model._validate_anndata(adata)
    cells = np.arange(data.n_obs) if indices is None else np.unique(indices)
    tested = model.held_out(data) if indices is None else cells
    if len(cells) < FEWEST_TESTED:
        raise ValueError(
            f"Only {len(cells)} different cells were selected, but at least {FEWEST_TESTED} are "
            "needed. Pass more cells as `indices`, or a larger `adata`."
        )
    rng = np.random.default_rng(seed)
    cells = np.sort(rng.permutation(cells)[:MOST_CELLS])
    labels = None if labels_key is None else labels_of(data, labels_key, cells)
    with model.seeded(seed):
        table = nats_of_dimensions(model, data, rng.permutation(tested), show_progress)
        progress = "Encoding" if show_progress else None
        positions = posteriors(model, data, cells, progress=progress).mean
        used = table.index[table["status"] == "used"].tolist()
        steps = steps_among(positions, used)
        drawn = np.sort(rng.permutation(cells)[:n_cells])
        effects = effects_of_steps(model, data, drawn, steps, chosen, show_progress)
    names = {name: model.features(name) for name in chosen}
    genes, fold_changes = gene_tables(effects, names, n_genes)
    ends = {"low": steps.ends["-"], "median": steps.median, "high": steps.ends["+"]}
    table = table.assign(**ends, **_relations(model, data, cells, positions, labels))
    seen = model.has_seen(data, tested)
    return ExplainedDimensions(table, genes, fold_changes, len(tested), not seen)


def _relations(
    model: LatentModel,
    adata: AnnOrMuData,
    cells: np.ndarray,
    positions: np.ndarray,
    labels: pd.Series | None,
) -> dict[str, np.ndarray]:
    """Return columns on the label that each dimension separates, and on registered covariates."""
    found = {}
    if labels is not None:
        has = labels.notna().to_numpy()
        sizes = labels.value_counts()
        scores = label_information(positions[has], labels[has].to_numpy())
        scores = scores[sizes.index[sizes >= FEWEST_LABELLED].intersection(scores.columns)]
        best = scores.T.fillna(0).idxmax() if scores.shape[1] else pd.Series(np.nan, scores.index)
        found["label"] = best.to_numpy()
        found["label_information"] = scores.max(axis=1).to_numpy()
    known = model.covariates(adata).of(cells)
    for part, is_code in ((known.categorical, True), (known.continuous, False)):
        for name, values in part.items():
            found[f"explained_by_{name}"] = variance_explained(positions, values, is_code)
    return found
