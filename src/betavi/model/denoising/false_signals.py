"""Detection of correlations and markers that denoising creates."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import sparse
from scvi import REGISTRY_KEYS
from sklearn.cluster import KMeans
from sklearn.decomposition import TruncatedSVD

from betavi import diagnostics
from betavi.model.denoising.estimate import ESTIMATES, cells_with
from betavi.model.denoising.retrain import denoised_moments, molecule_counts, trained_on
from betavi.model.setup.arguments import check_arguments
from betavi.model.setup.check_obs import obs_column
from betavi.model.setup.messages import name_some

if TYPE_CHECKING:
    from collections.abc import Sequence

    from betavi.model.core.latent_model import LatentModel

N_GROUPS, N_COMPONENTS = 8, 20
"""Number of clusters if groups are missing, and of SVD components for clustering. Not tuned."""


def check_false_signals(
    model: LatentModel,
    groups: Sequence[Any] | str | None = None,
    share: float = 0.5,
    seed: int = 0,
    show_progress: bool = True,
    modality: str | None = None,
    **train_kwargs: Any,
) -> pd.DataFrame:
    """Count correlations and markers that denoising finds among shuffled genes.

    Some genes are shuffled among cells of the same batch and of similar depth. A new model with the
    same settings is trained on these counts. If a shuffled gene is then correlated with another
    gene, or is a marker of a group of cells, this is an artefact of denoising. Statistical tests
    need independent measurements, but denoised values are not independent: neighbours share their
    counts.

    With several modalities, only the features of one modality are shuffled, in the cells that have
    it.

    Parameters
    ----------
    groups
        Groups of cells: a column of ``obs``, or one value per cell. If None, the registered labels
        or, without labels, eight clusters based on the unshuffled genes.
    share
        Share of the genes to shuffle.
    seed
        Seed of the permutations.
    show_progress
        Show progress bars.
    modality
        Modality to shuffle. Not needed if only one modality has counts.
    **train_kwargs
        Passed to ``train``. If this model was trained, the default of ``max_epochs`` is the same
        number of epochs.

    Returns
    -------
    Data frame with one row for the counts, for each baseline and for each estimate.
    ``false_correlations`` is the share of pairs of shuffled genes with a significant correlation of
    log(1 + counts per 10,000). The significance level is 5 % divided by the number of pairs.
    ``correlations`` is the same share for the other genes. ``false_markers`` is the share of
    shuffled genes that differ between the groups, at a false discovery rate of 5 %. ``markers`` is
    the same share for the other genes.

    Raises
    ------
    KeyError
        If ``obs`` lacks the column.
    ValueError
        If ``groups`` does not have one value per cell, the registered values are not counts, the
        object is minified, or ``modality`` is missing although several modalities have counts.

    References
    ----------
    Andrews & Hemberg (2018), False signals induced by single-cell imputation.

    Examples
    --------
    >>> import betavi
    >>> adata = betavi.datasets.simulate_counts(n_cells=200, n_genes=20)
    >>> betavi.BetaVI.setup_anndata(adata)
    >>> model = betavi.BetaVI(adata, n_latent=3)
    >>> table = model.check_false_signals("cell_type", max_epochs=1, show_progress=False)
    >>> list(table.columns)
    ['false_correlations', 'correlations', 'false_markers', 'markers']
    """
    model.refuse_images(
        "check_false_signals", "Compare denoised images with a second exposure of the same cells."
    )
    check_arguments({"seed": seed})
    model.refuse_minified("check_false_signals")
    if not 0 < share < 1:
        raise ValueError(f"`share` must be between 0 and 1, both excluded, not {share!r}.")
    name, counts = _shuffled_modality(model, modality)
    cells = cells_with(model, model.adata, name)
    codes = _group_codes(model, groups, cells)
    batch = model.adata_manager.get_from_registry(REGISTRY_KEYS.BATCH_KEY).ravel()[cells]
    shuffled = diagnostics.shuffle_genes(counts, batch, share, seed)
    false, true = diagnostics.some_of_each(shuffled.genes, counts.shape[1], seed)
    if codes is None:
        codes = _clusters(counts, true, seed)
    trained = trained_on(model, {name: shuffled.counts}, {}, show_progress, train_kwargs)
    rows = {label: make(shuffled.counts, seed) for label, make in diagnostics.BASELINES.items()}
    for estimate in ESTIMATES:
        moments = denoised_moments(trained, name, estimate, 1, show_progress)
        rows[estimate] = (mean for mean, _ in moments)
    both, shares = np.concatenate([false, true]), {}
    for label, blocks in rows.items():
        values = np.concatenate([diagnostics.log_normalised(block)[:, both] for block in blocks])
        shares[label] = _shares(shuffled.within(values), len(false), codes)
    return pd.DataFrame.from_dict(shares, orient="index")


def _shuffled_modality(model: LatentModel, modality: str | None) -> tuple[str, sparse.csr_matrix]:
    """Return the modality to shuffle, and its counts."""
    if modality is not None:
        model.named_modalities(modality)
    counts = molecule_counts(model)
    choices = ", ".join(map(repr, counts))
    if modality is None and len(counts) > 1:
        raise ValueError(f"Several modalities have counts. Set `modality` to one of {choices}.")
    name = next(iter(counts)) if modality is None else modality
    if name not in counts:
        raise ValueError(
            f"The modality {name!r} has no molecule counts. Set `modality` to one of {choices}."
        )
    return name, counts[name]


def _group_codes(
    model: LatentModel, groups: Sequence[Any] | str | None, cells: np.ndarray
) -> np.ndarray | None:
    """Return the code of each cell's group. None if there are neither groups nor labels."""
    adata = model.adata
    if groups is None:
        codes = np.asarray(model.adata_manager.get_from_registry(REGISTRY_KEYS.LABELS_KEY))
        return codes.ravel()[cells] if len(np.unique(codes)) > 1 else None
    if isinstance(groups, str):
        groups = obs_column(adata, groups).tolist()
    if len(groups) != adata.n_obs:
        raise ValueError(f"`groups` has {len(groups)} values. Pass {adata.n_obs}, one per cell.")
    codes = pd.factorize(np.asarray(groups, dtype=object)[cells])[0]
    if (codes < 0).any():
        missing = adata.obs_names[cells[codes < 0]]
        raise ValueError(
            f"`groups` has no value for {len(missing)} cell(s): {name_some(missing)}. Assign a "
            "group to these cells."
        )
    return codes


def _clusters(counts: sparse.csr_matrix, genes: np.ndarray, seed: int) -> np.ndarray:
    logs = sparse.csr_matrix(diagnostics.log_normalised(counts.toarray()[:, genes]))
    n_components = max(1, min(N_COMPONENTS, min(logs.shape) - 1))
    positions = TruncatedSVD(n_components, random_state=seed).fit_transform(logs)
    clusters = KMeans(min(N_GROUPS, len(positions)), random_state=seed, n_init=1)
    return clusters.fit_predict(positions)


def _shares(values: np.ndarray, n_shuffled: int, groups: np.ndarray) -> dict[str, float]:
    """Return the shares of significant tests. The first columns are the shuffled genes."""
    false, true = np.split(values, [n_shuffled], axis=1)
    return {
        "false_correlations": diagnostics.correlated_share(false),
        "correlations": diagnostics.correlated_share(true),
        "false_markers": diagnostics.marker_share(false, groups),
        "markers": diagnostics.marker_share(true, groups),
    }
