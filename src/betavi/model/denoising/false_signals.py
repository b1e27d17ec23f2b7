"""Correlations and markers that denoising makes up."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import sparse
from scvi import REGISTRY_KEYS
from sklearn.cluster import KMeans
from sklearn.decomposition import TruncatedSVD

from betavi._tables import close_matches
from betavi.diagnostics import (
    BASELINES,
    correlated_share,
    log_normalised,
    marker_share,
    shuffle_genes,
    some_of_each,
)
from betavi.model.denoising.estimate import ESTIMATES, cells_with
from betavi.model.denoising.retrain import expected_counts, molecule_counts, trained_on

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from betavi.diagnostics import Shuffled
    from betavi.model.core.latent_model import LatentModel

N_GROUPS = 8
N_COMPONENTS = 20


def check_false_signals(
    model: LatentModel,
    groups: Sequence[Any] | str | None = None,
    share: float = 0.5,
    seed: int = 0,
    show_progress: bool = True,
    modality: str | None = None,
    **train_kwargs: Any,
) -> pd.DataFrame:
    """Shuffle genes, denoise, and count the relations that are found and are not there.

    A model like this one is trained on counts of which some genes were shuffled among cells of
    the same batch and of like depth. Whatever then correlates with such a gene, or makes it a
    marker of a group of cells, was made up by the denoising. Tests need independent measurements,
    and denoised values are not independent: neighbours share their counts.

    With several modalities, the features of one are shuffled in the cells that have it, and the
    others stay as they are.

    Parameters
    ----------
    groups
        Groups of cells, a column of ``obs`` or a value for each cell. If None, the registered labels
        or, without those, eight clusters by the genes that are not shuffled.
    share
        Share of the genes to shuffle.
    seed
        Seed of the permutations.
    show_progress
        Show bars.
    modality
        Modality to shuffle; may be left out if only one has counts.
    **train_kwargs
        Passed to ``train``; ``max_epochs`` is that of this model if it was trained.

    Returns
    -------
    A row for the counts, for each baseline and for each estimate: ``false_correlations``, the
    share of pairs of shuffled genes called correlated, on log(1 + counts per 10,000), at a
    level of 5 % over the number of pairs; ``correlations``, that of pairs of the other genes;
    ``false_markers`` and ``markers``, the shares of either that differ between the groups at a
    false discovery rate of 5 %.

    Raises
    ------
    KeyError
        If ``obs`` has no such column.
    ValueError
        If the groups are not one for each cell, the registered values are no counts, the object is
        minified, or several modalities have counts and none is named.

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
    model.refuse_minified("check_false_signals")
    if not 0 < share < 1:
        raise ValueError(f"share is between 0 and 1, and not {share!r}: some genes stay.")
    name, counts = _counts_of_one(model, modality)
    cells = cells_with(model, model.adata, name)
    codes = _codes_of(model, groups, cells)
    batch = model.adata_manager.get_from_registry(REGISTRY_KEYS.BATCH_KEY).ravel()[cells]
    shuffled = shuffle_genes(counts, batch, share, seed)
    false, true = some_of_each(shuffled.genes, counts.shape[1], seed)
    if codes is None:
        codes = _clusters(counts, true, seed)
    trained = trained_on(model, {name: shuffled.counts}, {}, show_progress, train_kwargs)
    rows = {label: make(shuffled.counts, seed) for label, make in BASELINES.items()}
    for estimate in ESTIMATES:
        rows[estimate] = expected_counts(trained, name, estimate, 1, show_progress)
    found = {
        label: _found(blocks, shuffled, (false, true), codes) for label, blocks in rows.items()
    }
    return pd.DataFrame.from_dict(found, orient="index")


def _counts_of_one(model: LatentModel, modality: str | None) -> tuple[str, sparse.csr_matrix]:
    """Return the modality that is meant, and its counts."""
    if modality is not None:
        model.named_modalities(modality)
    counts = molecule_counts(model)
    choices = ", ".join(map(repr, counts))
    if modality is None and len(counts) > 1:
        raise ValueError(f"Several modalities have counts: choose one, modality=, of {choices}.")
    name = next(iter(counts)) if modality is None else modality
    if name not in counts:
        raise ValueError(f"{name!r} has no counts of molecules. Modalities that have: {choices}.")
    return name, counts[name]


def _codes_of(
    model: LatentModel, groups: Sequence[Any] | str | None, cells: np.ndarray
) -> np.ndarray | None:
    """Return a code for the group of each of some cells, None if nothing says what the groups are."""
    adata = model.adata
    if groups is None:
        codes = np.asarray(model.adata_manager.get_from_registry(REGISTRY_KEYS.LABELS_KEY))
        return codes.ravel()[cells] if len(np.unique(codes)) > 1 else None
    if isinstance(groups, str):
        if groups not in adata.obs:
            raise KeyError(f"obs has no column {groups!r}. {close_matches(groups, adata.obs)}")
        groups = adata.obs[groups].tolist()
    if len(groups) != adata.n_obs:
        raise ValueError(f"groups are of {len(groups)} cells, and there are {adata.n_obs}.")
    codes = pd.factorize(np.asarray(groups, dtype=object)[cells])[0]
    if (codes < 0).any():
        cell = adata.obs_names[cells[codes < 0][0]]
        raise ValueError(f"groups do not say of which the cell {cell!r} is.")
    return codes


def _clusters(counts: sparse.csr_matrix, genes: np.ndarray, seed: int) -> np.ndarray:
    logs = sparse.csr_matrix(log_normalised(counts.toarray()[:, genes]))
    n_components = max(1, min(N_COMPONENTS, min(logs.shape) - 1))
    positions = TruncatedSVD(n_components, random_state=seed).fit_transform(logs)
    clusters = KMeans(min(N_GROUPS, len(positions)), random_state=seed, n_init=1)
    return clusters.fit_predict(positions)


def _found(
    blocks: Iterable[np.ndarray],
    shuffled: Shuffled,
    genes: tuple[np.ndarray, np.ndarray],
    groups: np.ndarray,
) -> dict[str, float]:
    """Return what tests find of genes that were shuffled, and of others."""
    both = np.concatenate(genes)
    values = np.concatenate([log_normalised(block)[:, both] for block in blocks])
    of_false, of_true = np.split(shuffled.within(values), [len(genes[0])], axis=1)
    return {
        "false_correlations": correlated_share(of_false),
        "correlations": correlated_share(of_true),
        "false_markers": marker_share(of_false, groups),
        "markers": marker_share(of_true, groups),
    }
