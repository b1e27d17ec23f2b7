"""Differential expression, accessibility and protein abundance, by scvi-tools' tests."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy import sparse
from scvi import REGISTRY_KEYS
from scvi.model.base._de_core import _de_core

from betavi._tables import lookup
from betavi.model.core.beta import scvi_getter
from betavi.model.expression.decode import DecodeRequest, expression_modality
from betavi.model.expression.groups import Groups
from betavi.model.expression.normalized import WEIGHTS, get_normalized_expression
from betavi.model.setup.check_mudata import lacks_counts
from betavi.model.setup.registered import untouched_on_failure

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import pandas as pd
    from scvi._types import AnnOrMuData
    from scvi.data import AnnDataManager

    from betavi.model.core.latent_model import LatentModel

PSEUDOCOUNT = 0.01
"""Pseudocount of fold changes, in counts per cell of typical size. A feature with fewer counts
shows no fold change. For proteins, which have a large background, 1 is used. Not tuned."""

PER_CELL = 1e4
"""Total of each cell in the normalised means of raw counts, as in scvi-tools."""


@scvi_getter
def differential_expression(
    model: LatentModel,
    adata: AnnOrMuData | None = None,
    groupby: str | None = None,
    group1: Sequence[str] | str | None = None,
    group2: str | None = None,
    idx1: Sequence[int] | Sequence[bool] | str | None = None,
    idx2: Sequence[int] | Sequence[bool] | str | None = None,
    mode: str | None = None,
    delta: float | None = None,
    batch_size: int | None = None,
    all_stats: bool = True,
    batch_correction: bool = False,
    batchid1: Sequence[str] | None = None,
    batchid2: Sequence[str] | None = None,
    fdr_target: float = 0.05,
    silent: bool = False,
    weights: str | None = "uniform",
    filter_outlier_cells: bool = False,
    importance_weighting_kwargs: dict[str, Any] | None = None,
    modality: str | None = None,
    **kwargs: Any,
) -> pd.DataFrame:
    """Compare groups of cells, feature by feature.

    The test compares expected values, decoded from one posterior sample of each sampled cell. The
    reported probabilities are the model's own. Only cells with the modality are compared. The
    latent position of a cell is inferred from all modalities of the cell.

    Parameters
    ----------
    adata, batch_size
        See :meth:`get_latent_representation`.
    groupby
        Column of ``obs`` with the groups.
    group1
        Group or groups to compare. If None, each group in turn.
    group2
        Group to compare with. If None, all other cells.
    idx1, idx2
        Cells in place of groups: names, positions, a mask, or a query of ``obs`` such as
        ``"cell_type == 'B' and condition == 'treated'"``.
    mode
        ``"vanilla"`` tests which group has higher values (Lopez et al., 2018). ``"change"`` gives
        the probability of an effect larger than ``delta`` (Boyeau et al., 2019). If None, BetaVI
        uses ``"vanilla"``, as SCVI does, and JointVI uses ``"change"``, as MULTIVI does.
    delta
        Smallest relevant effect. This is a log2 fold change, by default 0.25. For accessibility, it
        is a difference of probabilities, by default 0.05.
    all_stats
        Add the means of the raw counts, and the shares of nonzero counts, if the object has counts.
    batch_correction
        Decode both groups in the same batches.
    batchid1, batchid2
        Batches to decode the first and the second group in.
    fdr_target
        False discovery rate of the features tagged as differential.
    silent
        Hide the progress bar.
    weights, importance_weighting_kwargs
        Weights of the posterior samples, see :meth:`get_normalized_expression`.
    filter_outlier_cells
        Leave out cells that are outliers of their group in the latent space.
    modality
        Modality to compare. All likelihoods are possible. If None, as in
        :meth:`get_normalized_expression`.
    **kwargs
        Arguments of :meth:`scvi.model.base.DifferentialComputation.get_bayes_factors`.

    Returns
    -------
    One row per feature and comparison, see :meth:`scvi.model.SCVI.differential_expression`. For
    accessibility, ``lfc_*`` are differences of probabilities.

    Raises
    ------
    KeyError
        If the column or a group does not exist.
    ValueError
        If the modality or the groups are unclear, the mode is unknown, a query selects no cell, or
        a group has no cells with the modality.
    RuntimeError
        If the model is not trained.

    References
    ----------
    Lopez et al. (2018), Deep generative modeling for single-cell transcriptomics. Boyeau et al.
    (2019), Deep generative models for detecting differential expression in single cells.

    Examples
    --------
    >>> import betavi
    >>> adata = betavi.datasets.simulate_counts(n_cells=200, n_genes=20)
    >>> betavi.BetaVI.setup_anndata(adata)
    >>> model = betavi.BetaVI(adata)
    >>> model.train(max_epochs=1, enable_progress_bar=False)
    >>> found = model.differential_expression(groupby="cell_type", group1="type_0", silent=True)
    >>> found.shape[0], "bayes_factor" in found
    (20, True)
    """
    adata = model._validate_anndata(adata)
    name = expression_modality(model, modality, any_named=True)
    mode = mode or ("vanilla" if model.module.typical(name) is None else "change")
    groups = Groups(groupby, group1, group2, idx1, idx2).with_positions(adata.obs_names)
    groups = groups.checked(adata.obs, mode)
    has = model.adapter.has(adata, name)
    groups.check_measured(adata.obs, has, name)
    detects = model.likelihood(name).is_of_detection
    if detects and mode == "change":
        kwargs.setdefault("change_fn", _difference)
    if delta is None:
        delta = 0.05 if detects else 0.25
    if (pseudocounts := _pseudocounts(model, name)) is not None:
        kwargs.setdefault("pseudocounts", pseudocounts)
    manager = model.manager(adata)
    if batch_correction:
        batch = manager.get_from_registry(REGISTRY_KEYS.BATCH_KEY).ravel()
        groups.warn_of_batches(adata.obs, batch)
    if lookup(WEIGHTS, "uniform" if weights is None else weights, "weights"):
        options: dict[str, Any] = {"batch_size": batch_size, "modality": modality}
        options |= {"weights": weights, "return_numpy": True}
        further = importance_weighting_kwargs or {}
        draw: Callable[..., Any] = partial(get_normalized_expression, model, **options, **further)
    else:
        request = DecodeRequest(model, adata, name, batch_size=batch_size)
        draw = partial(_sampled_values, request, has, np.random.default_rng(0))
    representation = model.get_latent_representation if filter_outlier_cells else None
    statistics = partial(_raw_statistics, name=name)
    with untouched_on_failure(adata):
        return _de_core(
            adata_manager=manager, model_fn=draw, representation_fn=representation,
            **groups._asdict(), all_stats=all_stats and not lacks_counts(adata),
            all_stats_fn=statistics, col_names=model.features(name), mode=mode,
            batchid1=batchid1, batchid2=batchid2, delta=delta, batch_correction=batch_correction,
            fdr=fdr_target, silent=silent, **kwargs,
        )  # fmt: skip


def _pseudocounts(model: LatentModel, name: str) -> float | None:
    """Return the pseudocount of fold changes. None means scvi-tools' own estimate."""
    typical = model.module.typical(name)
    if typical is None:
        return None
    return PSEUDOCOUNT / typical.usual.exp().item() if model.likelihood(name).reads_size else 1.0


def _sampled_values(
    request: DecodeRequest,
    has: np.ndarray,
    rng: np.random.Generator,
    adata: AnnOrMuData,
    indices: np.ndarray,
    transform_batch: str | int | None = None,
    n_samples_overall: int = 5000,
) -> np.ndarray:
    """Return values decoded for random cells with the modality, ``(n_draws, n_features)``."""
    cells = indices[has[indices]]
    if not len(cells):
        raise ValueError(
            f"The modality {request.name!r} was not measured in any cell of a group. Choose other "
            "groups."
        )
    # in random order, because scvi-tools compares the draws of two groups pair by pair
    cells = rng.choice(cells, n_samples_overall)
    request = request._replace(adata=adata, cells=cells, transform_batch=transform_batch)
    detects = request.model.likelihood(request.name).is_of_detection
    with torch.inference_mode():
        return request.values(lambda px: px.mean if detects else px.get_normalized("scale"))


def _difference(first: np.ndarray, second: np.ndarray, pseudocounts: float) -> np.ndarray:  # noqa: ARG001  # scvi-tools passes three arguments
    return first - second


def _raw_statistics(
    manager: AnnDataManager, idx1: np.ndarray, idx2: np.ndarray, name: str
) -> dict[str, np.ndarray]:
    """Return means and shares of nonzero values of raw counts, over cells with the modality."""
    rows, of_groups = manager.rows(name), []
    for chosen in (idx1, idx2):
        mask = np.zeros(rows.shape[0], dtype=bool)
        mask[chosen] = True
        counts = sparse.csr_array(rows[np.flatnonzero(mask & rows.present)], dtype=np.float64)
        totals = np.maximum(counts.sum(axis=1), 1.0)
        normalized = sparse.diags_array(PER_CELL / totals) @ counts
        of_groups.append([part.mean(axis=0) for part in (counts, counts != 0, normalized)])
    kinds = ("raw_mean", "non_zeros_proportion", "raw_normalized_mean")
    pairs = zip(kinds, zip(*of_groups, strict=True), strict=True)
    return {f"{kind}{n}": value for kind, pair in pairs for n, value in enumerate(pair, start=1)}
