"""Labels of new cells, with calibrated probabilities, label sets, and the answer "unknown"."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from anndata import AnnData
from mudata import MuData
from scvi import REGISTRY_KEYS

from betavi.diagnostics import calibrate_labels
from betavi.model.core.beta import takes_beta
from betavi.model.setup.messages import name_some, warn
from betavi.model.support.labels import (
    UNKNOWN,
    evidence_of,
    labels_of,
    modalities_to_use,
    reference_of,
)
from betavi.model.support.novelty import novelty_p_values

if TYPE_CHECKING:
    from collections.abc import Sequence

    from scvi._types import AnnOrMuData

    from betavi.model.core.latent_model import LatentModel

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

    A logistic regression on log counts learns the labels. If it lowers the log loss on cells of the
    reference by at least 5 %, a second regression on latent positions is added. This helps if counts
    are sparse. The probabilities are calibrated on cells that the regressions have not seen: of all
    cells with a probability of 0.8, about 80 % have this label. In a joint model, each modality has
    its own regression, and a cell is labelled from the modalities that it has.

    A cell that resembles no label is called ``"unknown"``. Two scores of its log counts decide: the
    distance to the likeliest label in 20 components, and the 30 features that exceed the means of
    the label most. The p-value is the share of labelled cells of the same depth that are at least
    as outlying. These cells are left out of the estimates. Unlike :meth:`support`, this test does
    not use the model.

    Parameters
    ----------
    adata
        Query, with the features of the reference. If None, cells of the model's own object that have
        no label (NaN). A batch that the reference lacks is treated as its largest batch.
    labels_key
        Column of ``obs`` of the model's own object. Cells with NaN or ``"unknown"`` have no label.
    indices
        Names, positions or a mask of the cells to label. If None, all cells.
    level
        Share of cells whose label is in their label set.
    unknown
        Share of cells like the labelled cells that are called unknown, between 0 and 1. With 0, no
        cell is.
    soft
        Return the probability of each label instead, as SCANVI's ``predict(soft=True)`` does.
        ``unknown`` is then not used.
    show_progress
        Show a progress bar of the test for unknown cells.

    Returns
    -------
    Data frame, indexed by cell names: ``label``, the most probable label or ``"unknown"``;
    ``guess``, the most probable label of every cell; ``probability`` of the guess; ``labels``, the
    label set, a tuple of names with the most probable first; and ``p_value``, small for a cell that
    resembles no label, and NaN with ``unknown=0``. With ``soft=True``, one column for each label.

    Raises
    ------
    KeyError
        If ``obs`` has no column ``labels_key``.
    ValueError
        If the reference has fewer than two labels, all cells of the model's own object have a label,
        a share is not between 0 and 1, or no modality of a query cell has two labels.
    TypeError
        If the column has fractions.

    References
    ----------
    Guo et al. (2017), On calibration of modern neural networks. Sadinle et al. (2019), Least
    ambiguous set-valued classifiers with bounded error levels. Abdelaal et al. (2019), A comparison
    of automatic cell identification methods for single-cell RNA sequencing data, on linear
    classifiers of counts. Lee et al. (2018), A simple unified framework for detecting
    out-of-distribution samples and adversarial attacks, on distances to classes. Bates et al. (2023),
    Testing for outliers with conformal p-values.

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
    labels = labels_of(model, labels_key)
    known = None if adata is None else _with_known_batches(model, adata)
    query = model._validate_anndata(known)
    cells = _cells(query, labels if adata is None else None, indices)
    reference = reference_of(model, labels, labels_key)
    shape = len(cells), len(reference.names)
    probabilities, chosen = np.zeros(shape), np.zeros(shape, dtype=bool)
    p_value = np.full(len(cells), np.nan)
    for names, mine in modalities_to_use(model, query, cells, reference):
        calibration = calibrate_labels(*reference.crossed(names), level)
        scores = reference.scores(
            {name: evidence_of(model, query, name, cells[mine], reference) for name in names}
        )
        probabilities[mine] = calibration.probabilities(scores)
        chosen[mine] = calibration.sets(probabilities[mine])
        if unknown > 0 and not soft:
            p_value[mine] = novelty_p_values(
                model, query, names, cells[mine], reference, show_progress
            )
    index = query.obs_names[cells]
    if soft:
        return pd.DataFrame(probabilities, index=index, columns=pd.Index(reference.names))
    return _table(probabilities, chosen, p_value, unknown, index, reference.names)


def _cells(query: AnnOrMuData, labels: pd.Series | None, indices: Any) -> np.ndarray:
    """Return the positions of the query cells. By default, those without ``labels`` if given."""
    if indices is not None:
        return np.asarray(indices)
    cells = np.arange(query.n_obs) if labels is None else np.flatnonzero(labels.isna())
    if not len(cells):
        raise ValueError(
            "All cells of the model's own object have a label. Pass new cells as `adata`, or choose "
            "cells by `indices`."
        )
    return cells


def _with_known_batches(model: LatentModel, adata: Any) -> Any:
    """Return the object, or one with the same counts and known batches."""
    key = model.registry_["setup_args"].get("batch_key")
    if key is None or not isinstance(adata, AnnData | MuData) or key not in adata.obs:
        return adata
    manager = model.adata_manager
    known = np.asarray(manager.get_state_registry(REGISTRY_KEYS.BATCH_KEY).categorical_mapping)
    batches = adata.obs[key].astype(object)
    is_new = (batches.notna() & ~batches.isin(known)).to_numpy()
    if not is_new.any():
        return adata
    codes = manager.get_from_registry(REGISTRY_KEYS.BATCH_KEY).ravel().astype(int)
    usual = known[np.bincount(codes).argmax()]
    warn(
        f"Some batches are not in the reference: {name_some(batches[is_new].astype(str).unique())}. "
        f"Their cells are treated as batch {str(usual)!r}. A difference between batches makes "
        "probabilities less accurate, and more cells unknown."
    )
    obs = adata.obs.copy()
    obs[key] = pd.Categorical(batches.where(~is_new, usual), categories=known)
    if isinstance(adata, MuData):
        copy = MuData({name: _shallow(part) for name, part in adata.mod.items()})
        copy.obs = obs.loc[copy.obs_names]
        return copy
    copy = _shallow(adata)
    copy.obs = obs
    return copy


def _shallow(adata: AnnData) -> AnnData:
    """Return an object with the same counts, which can be registered without changing the other."""
    uns = {key: value for key, value in adata.uns.items() if not key.startswith("_scvi")}
    parts = {"layers": dict(adata.layers), "obsm": dict(adata.obsm)}
    return AnnData(adata.X, obs=adata.obs.copy(), var=adata.var.copy(), uns=uns, **parts)


def _table(
    probabilities: np.ndarray,
    chosen: np.ndarray,
    p_value: np.ndarray,
    unknown: float,
    index: pd.Index,
    names: np.ndarray,
) -> pd.DataFrame:
    best, order = probabilities.argmax(axis=1), np.argsort(-probabilities, axis=1)
    # a cell without counts has no p-value
    is_unknown = ~(p_value >= unknown) if unknown > 0 else np.zeros(len(index), dtype=bool)
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
