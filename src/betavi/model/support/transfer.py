"""Labels of new cells, with calibrated probabilities, label sets, and the answer "unknown"."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse

from betavi._tables import close_matches
from betavi.data import weights_digest
from betavi.diagnostics import Classifier, calibrate_labels, combine, fit_classifier
from betavi.model.core.beta import takes_beta
from betavi.model.setup.messages import name_some, warn
from betavi.model.support.support import support

if TYPE_CHECKING:
    from collections.abc import Sequence

    from scvi._types import AnnOrMuData

    from betavi.model.core.latent_model import LatentModel

UNKNOWN = "unknown"
"""Label of a cell that is unlike all reference cells."""

TARGET_SUM = 1e4
"""Total counts per cell before the logarithm, as is usual with scanpy."""

MOST_REFERENCE_CELLS = 10_000
"""Largest number of labelled cells that a classifier is fitted to, drawn from all. Not tuned."""

FEWEST_OF_LABEL = 2
"""Smallest number of reference cells of a label."""

MANY_UNKNOWN = 3.0
"""A warning is given if more cells are unknown than this many times the expected share."""


@takes_beta
def transfer_labels(
    model: LatentModel,
    adata: AnnOrMuData | None,
    labels_key: str,
    indices: Sequence[int] | np.ndarray | None = None,
    level: float = 0.9,
    unknown: float = 0.05,
    soft: bool = False,
    show_progress: bool = True,
) -> pd.DataFrame:
    """Predict labels of new cells from the labelled cells of the model's own object.

    A logistic regression on log counts learns the labels. The probabilities are calibrated on cells
    that the regression has not seen, so that of all cells with a probability of 0.8, about 80 % have
    this label. In a joint model, each modality has its own regression, and a cell is labelled from
    the modalities that it has. A cell that :meth:`support` finds unlike the reference is called
    ``"unknown"``.

    The latent space is not used for the label itself, because nearest neighbours in it were right
    less often on all data that we tried (``python -m benchmarks.labels``).

    Parameters
    ----------
    adata
        Query, with the features of the reference. If None, cells of the model's own object that have
        no label (NaN). A batch that the reference lacks is treated as its largest batch.
    labels_key
        Column of ``obs`` of the model's own object.
    indices
        Names, positions or a mask of the cells to label. If None, all cells.
    level
        Share of cells whose label is in their label set.
    unknown
        Share of cells like the reference that are called unknown. With 0, no cell is.
    soft
        Return the probability of each label instead, as SCANVI's ``predict(soft=True)`` does.
    show_progress
        Show a progress bar.

    Returns
    -------
    Data frame, indexed by cell names: ``label``, the most probable label or ``"unknown"``;
    ``guess``, the most probable label of every cell; ``probability`` of the guess; ``labels``, the
    label set, a tuple of names with the most probable first; and ``p_value`` of :meth:`support`, NaN
    with ``unknown=0``. With ``soft=True``, one column for each label.

    Raises
    ------
    KeyError
        If ``obs`` has no column ``labels_key``.
    ValueError
        If the reference has fewer than two labels, all cells of the model's own object have a label,
        or a share is not between 0 and 1.

    References
    ----------
    Guo et al. (2017), On calibration of modern neural networks. Sadinle et al. (2019), Least
    ambiguous set-valued classifiers with bounded error levels. Abdelaal et al. (2019), A comparison
    of automatic cell identification methods for single-cell RNA sequencing data, on linear
    classifiers of counts.

    Examples
    --------
    >>> import betavi
    >>> adata = betavi.datasets.simulate_counts(n_cells=300)
    >>> adata.obs.loc[adata.obs_names[:50], "cell_type"] = None
    >>> betavi.BetaVI.setup_anndata(adata)
    >>> model = betavi.BetaVI(adata, n_latent=5)
    >>> model.train(max_epochs=2, enable_progress_bar=False)
    >>> table = model.transfer_labels(None, "cell_type", show_progress=False)
    >>> len(table), list(table.columns)
    (50, ['label', 'guess', 'probability', 'labels', 'p_value'])
    """
    model.refuse_minified("transfer_labels")
    if not 0 < level < 1:
        raise ValueError(f"`level` must be between 0 and 1, as 0.9, not {level!r}.")
    reference = _reference(model, labels_key)
    query, cells = _query(model, adata, indices, reference)
    shape = len(cells), len(reference.names)
    probabilities, chosen = np.zeros(shape), np.zeros(shape, dtype=bool)
    for names, mine in _patterns(model, query, cells):
        counts = [_log_counts(model, query, name, cells[mine]) for name in names]
        parts = [
            reference.classifiers[name].log_probabilities(part, len(reference.names))
            for name, part in zip(names, counts, strict=True)
        ]
        calibration = calibrate_labels(*reference.crossed(names), level)
        probabilities[mine] = calibration.probabilities(combine(parts, reference.prior))
        chosen[mine] = calibration.sets(probabilities[mine])
    index = query.obs_names[cells]
    if soft:
        return pd.DataFrame(probabilities, index=index, columns=reference.names)
    p_value = np.full(len(cells), np.nan)
    if unknown > 0:
        found = support(model, query, indices=cells, show_progress=show_progress)
        p_value = found["p_value"].to_numpy()
    return _table(probabilities, chosen, p_value, unknown, index, reference.names)


class Reference(NamedTuple):
    """Labelled cells of the model's own object, and a classifier for each modality.

    ``cells`` are their positions, ``codes`` the numbers of their labels, and ``has`` tells by
    modality which of the cells have it.
    """

    names: np.ndarray
    cells: np.ndarray
    codes: np.ndarray
    is_labelled: np.ndarray
    has: dict[str, np.ndarray]
    classifiers: dict[str, Classifier]

    @property
    def prior(self) -> np.ndarray:
        """Share of each label, ``(n_labels,)``."""
        # one cell is added to each label, because a label may have been left out by chance
        counts: np.ndarray = np.bincount(self.codes, minlength=len(self.names)) + 1
        return counts / counts.sum()

    def crossed(self, names: list[str]) -> tuple[np.ndarray, np.ndarray]:
        """Return scores of cells with these modalities, each from the other folds, and labels."""
        shared = np.all([self.has[name] for name in names], axis=0)
        if not shared.any():
            # no cell has all of them, so the first one calibrates
            names, shared = names[:1], self.has[names[0]]
        parts = [self.classifiers[name].crossed[shared[self.has[name]]] for name in names]
        return combine(parts, self.prior), self.codes[shared]


def _reference(model: LatentModel, labels_key: str) -> Reference:
    """Return the labelled cells with fitted classifiers, stored until labels or weights change."""
    adata = model._validate_anndata(None)
    if not isinstance(labels_key, str) or labels_key not in adata.obs:
        raise KeyError(
            f"The model's own object has no column obs[{labels_key!r}], given as `labels_key`. "
            f"{close_matches(labels_key, adata.obs.columns)}"
        )
    labels = adata.obs[labels_key]
    digest = pd.util.hash_pandas_object(labels.astype(str), index=False).to_numpy().tobytes()
    key = weights_digest(model.module, 0.0, adata.n_obs, id(adata)), hash(digest)
    return model.cached(f"labels {labels_key}", key, lambda: _fitted(model, adata, labels))


def _fitted(model: LatentModel, adata: AnnOrMuData, labels: pd.Series) -> Reference:
    is_labelled = labels.notna().to_numpy()
    counts = labels[is_labelled].astype(str).value_counts()
    names = np.asarray(sorted(counts.index[counts >= FEWEST_OF_LABEL]))
    if len(names) < 2:
        raise ValueError(
            f"obs[{labels.name!r}], given as `labels_key`, has {len(names)} label(s) with at least "
            f"{FEWEST_OF_LABEL} cells. Two labels are needed."
        )
    usable = np.flatnonzero(labels.astype(str).isin(names).to_numpy() & is_labelled)
    cells = np.sort(np.random.default_rng(0).permutation(usable)[:MOST_REFERENCE_CELLS])
    codes = np.searchsorted(names, labels.iloc[cells].astype(str).to_numpy())
    has = {name: model.adapter.has(adata, name)[cells] for name in model.modalities}
    classifiers = {
        name: fit_classifier(_log_counts(model, adata, name, cells[mask]), codes[mask], len(names))
        for name, mask in has.items()
        if len(np.unique(codes[mask])) > 1
    }
    return Reference(names, cells, codes, is_labelled, has, classifiers)


def _query(
    model: LatentModel, adata: AnnOrMuData | None, indices: Any, reference: Reference
) -> tuple[AnnOrMuData, np.ndarray]:
    """Return the object with the query cells, and their positions."""
    if adata is not None:
        query = model._validate_anndata(_with_known_batches(model, adata))
        return query, np.arange(query.n_obs) if indices is None else np.asarray(indices)
    cells = np.flatnonzero(~reference.is_labelled) if indices is None else np.asarray(indices)
    if not len(cells):
        raise ValueError(
            "All cells of the model's own object have a label. Pass new cells as `adata`, or choose "
            "cells by `indices`."
        )
    return model.adata, cells


def _with_known_batches(model: LatentModel, adata: Any) -> Any:
    """Return the object, or a copy of its annotation with unknown batches replaced."""
    key = model.registry_["setup_args"].get("batch_key")
    if key is None or not isinstance(adata, AnnData) or key not in adata.obs:
        return adata
    known = model.adata.obs[key].astype(str)
    batches = adata.obs[key].astype(str)
    is_new = ~batches.isin(known).to_numpy()
    if not is_new.any():
        return adata
    usual = model.adata.obs[key].value_counts().index[0]
    warn(
        f"The batches {name_some(batches[is_new].unique())} are not in the reference. Their cells are "
        f"treated as batch {usual!r}. A difference between batches makes probabilities less accurate, "
        "and more cells unknown."
    )
    obs = adata.obs.copy()
    obs[key] = np.where(is_new, usual, adata.obs[key].astype(object))
    return AnnData(
        adata.X, obs=obs, var=adata.var[[]], layers=dict(adata.layers), obsm=dict(adata.obsm)
    )


def _patterns(
    model: LatentModel, adata: AnnOrMuData, cells: np.ndarray
) -> list[tuple[list[str], np.ndarray]]:
    """Return each set of modalities that cells have, with a mask of these cells."""
    has = np.stack([model.adapter.has(adata, name)[cells] for name in model.modalities], axis=1)
    found = []
    for pattern in np.unique(has, axis=0):
        names = [name for name, given in zip(model.modalities, pattern, strict=True) if given]
        found.append((names, (has == pattern).all(axis=1)))
    return found


def _log_counts(
    model: LatentModel, adata: AnnOrMuData, name: str, cells: np.ndarray
) -> sparse.csr_matrix:
    """Return log counts, per 10,000 counts of a cell if the modality has library sizes."""
    counts = sparse.csr_matrix(model.rows(adata, name)[cells], dtype=np.float64)
    if model.likelihood(name).reads_size:
        totals = np.maximum(np.asarray(counts.sum(axis=1)).ravel(), 1)
        counts = sparse.diags(TARGET_SUM / totals) @ counts
    return sparse.csr_matrix(counts).log1p()


def _table(
    probabilities: np.ndarray,
    chosen: np.ndarray,
    p_value: np.ndarray,
    unknown: float,
    index: pd.Index,
    names: np.ndarray,
) -> pd.DataFrame:
    best, order = probabilities.argmax(axis=1), np.argsort(-probabilities, axis=1)
    is_unknown = p_value < unknown
    if is_unknown.mean() > MANY_UNKNOWN * unknown:
        warn(
            f"{is_unknown.sum()} of {len(index)} cells are called unknown. If these are not new cell "
            "types, the query as a whole differs from the reference, as by its batch or condition. "
            "The column `guess` has a label for every cell."
        )
    return pd.DataFrame(
        {
            "label": np.where(is_unknown, UNKNOWN, names[best]),
            "guess": names[best],
            "probability": probabilities.max(axis=1),
            "labels": [
                tuple(names[row[mask[row]]].tolist())
                for row, mask in zip(order, chosen, strict=True)
            ],
            "p_value": p_value,
        },
        index=index,
    )
