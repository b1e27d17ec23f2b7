"""Labelled reference cells, with a classifier for each modality."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from betavi import _blocks
from betavi.data import weights_digest
from betavi.diagnostics import Classifier, fit_classifier, label_loss, log_shares
from betavi.model.setup.check_obs import labels_column
from betavi.model.setup.messages import name_some, warn
from betavi.model.support.features import FEATURES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from scvi._types import AnnOrMuData

    from betavi.model.core.latent_model import LatentModel

UNKNOWN = "unknown"
"""Label of a cell that resembles no label."""

MOST_REFERENCE_CELLS = 10_000
"""Largest number of labelled cells that a classifier is fitted to, drawn from all. Not tuned."""

FEWEST_OF_LABEL = 2
"""Smallest number of reference cells of a label."""

LESS_LOSS = 0.95
"""The latent space is used beside the counts if the log loss on cells of the reference becomes at most
this many times as large. ``benchmarks.labels`` has the data on which it was chosen."""

FEWEST_SHARED = 50
"""Smallest number of labelled cells with some modalities that calibrate labels from these modalities
together. Not tuned."""


class Reference(NamedTuple):
    """Labelled cells of the model's own object, and classifiers for each modality.

    ``cells`` are their positions, ``codes`` the numbers of their labels, and ``has`` the cells with
    each modality that has classifiers. A modality has a classifier of the counts and, if it helps,
    one of the latent positions. ``key`` changes with the model, the object and the labels.
    """

    names: np.ndarray
    cells: np.ndarray
    codes: np.ndarray
    has: dict[str, np.ndarray]
    classifiers: dict[str, dict[str, Classifier]]
    key: tuple[object, ...]

    def scores(self, evidence: dict[str, np.ndarray]) -> np.ndarray:
        """Return log probabilities of labels up to a constant, ``(n_cells, n_labels)``.

        Modalities count as independent given the label.
        """
        return sum(evidence.values(), log_shares(self.codes, len(self.names)))

    def shared(self, names: Sequence[str]) -> np.ndarray:
        """Return a mask of the cells with all of these modalities."""
        shared: np.ndarray = np.all([self.has[name] for name in names], axis=0)
        return shared

    def crossed(self, names: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Return scores of the cells with these modalities, from the other folds, and labels."""
        shared = self.shared(names)
        parts = {}
        for name in names:
            crossed = sum(part.crossed for part in self.classifiers[name].values())
            parts[name] = np.asarray(crossed)[shared[self.has[name]]]
        return self.scores(parts), self.codes[shared]

    def usable(self, names: Sequence[str]) -> tuple[str, ...]:
        """Return the most modalities that at least 50 labelled cells share, or that most share."""
        known = [name for name in names if name in self.classifiers]
        subsets = [subset for n in range(len(known), 0, -1) for subset in combinations(known, n)]
        counts = {subset: int(self.shared(subset).sum()) for subset in subsets}
        enough = [subset for subset in subsets if counts[subset] >= FEWEST_SHARED]
        return enough[0] if enough else max(subsets, key=lambda subset: counts[subset])


def labels_of(model: LatentModel, labels_key: str) -> pd.Series:
    """Return the labels of the model's own cells, with NaN for cells without a usable label."""
    labels = labels_column(model._validate_anndata(None), labels_key, "The model's own object")
    labels = labels.astype(object).where(labels.notna(), np.nan)
    # the usual name of cells without a label
    labels = labels.where(labels.astype(str).str.lower() != UNKNOWN, np.nan)
    counts = labels.value_counts()
    labels = labels.where(labels.isin(counts.index[counts >= FEWEST_OF_LABEL]), np.nan)
    if labels.nunique() < 2:
        raise ValueError(
            f"obs[{labels_key!r}], given as `labels_key`, has {labels.nunique()} label(s) with at "
            f"least {FEWEST_OF_LABEL} cells. Two labels are needed."
        )
    return labels


def reference_of(model: LatentModel, labels: pd.Series, labels_key: str) -> Reference:
    """Return fitted classifiers, stored until labels or the model's object change."""
    found_codes, found_names = pd.factorize(labels, sort=False)
    names = np.asarray(found_names, dtype=object)
    order = np.argsort(names.astype(str))
    names = names[order]
    # cells without a label keep the code -1
    codes = np.where(found_codes < 0, -1, np.argsort(order)[found_codes])

    def make() -> Reference:
        adata = model.adata
        usable = np.random.default_rng(0).permutation(np.flatnonzero(codes >= 0))
        cells = np.sort(usable[:MOST_REFERENCE_CELLS])
        has, classifiers = {}, {}
        for name in model.modalities:
            mask = model.adapter.has(adata, name)[cells]
            if len(np.unique(codes[cells[mask]])) > 1:
                has[name] = mask
                classifiers[name] = _classifiers(
                    model, name, cells[mask], codes[cells[mask]], len(names)
                )
        if not classifiers:
            raise ValueError(
                f"No modality has cells of two labels of obs[{labels_key!r}], given as `labels_key`."
            )
        return Reference(names, cells, codes[cells], has, classifiers, key)

    beta = model.module.beta_condition.beta
    digest = weights_digest(model.module, beta, model.adata.n_obs, id(model.adata))
    key = labels_key, digest, codes.tobytes(), tuple(names.tolist())
    found: Reference = model.cached(f"labels {labels_key}", key, make)
    return found


def _classifiers(
    model: LatentModel, name: str, cells: np.ndarray, codes: np.ndarray, n_labels: int
) -> dict[str, Classifier]:
    """Return a classifier of the counts and, if the log loss is lower, one of the latent positions."""
    found = {
        word: fit_classifier(features(model, model.adata, name, cells), codes, n_labels)
        for word, features in FEATURES.items()
    }
    alone, both = (
        label_loss(sum(part.crossed for part in parts) + log_shares(codes, n_labels), codes)
        for parts in ([found["counts"]], found.values())
    )
    return found if both <= LESS_LOSS * alone else {"counts": found["counts"]}


def modalities_to_use(
    model: LatentModel, adata: AnnOrMuData, cells: np.ndarray, reference: Reference
) -> list[tuple[tuple[str, ...], np.ndarray]]:
    """Return the modalities to label cells from, with a mask of the cells. Warn about left out ones."""
    has = np.stack([model.adapter.has(adata, name)[cells] for name in model.modalities], axis=1)
    found = []
    for pattern in np.unique(has, axis=0):
        mine = (has == pattern).all(axis=1)
        names = [name for name, given in zip(model.modalities, pattern, strict=True) if given]
        if not any(name in reference.classifiers for name in names):
            raise ValueError(
                f"{mine.sum()} cell(s) have only {' and '.join(names)}, for which the reference has "
                f"fewer than two labels: {name_some(adata.obs_names[cells[mine]])}. Leave these cells "
                "out: indices=..."
            )
        usable = reference.usable(names)
        if left := sorted(set(names) - set(usable)):
            warn(
                f"{mine.sum()} cell(s) are labelled from {' and '.join(usable)} only, not from "
                f"{' and '.join(left)}, because fewer than {FEWEST_SHARED} labelled cells have all of "
                "these modalities."
            )
        found.append((usable, mine))
    return found


def evidence_of(
    model: LatentModel, adata: AnnOrMuData, name: str, cells: np.ndarray, reference: Reference
) -> np.ndarray:
    """Return the evidence of cells from one modality, ``(n_cells, n_labels)``."""
    found = np.zeros((len(cells), len(reference.names)))
    for start in range(0, len(cells), _blocks.DENSE_CELLS):
        block = slice(start, start + _blocks.DENSE_CELLS)
        for word, classifier in reference.classifiers[name].items():
            found[block] += classifier.evidence(FEATURES[word](model, adata, name, cells[block]))
    return found
