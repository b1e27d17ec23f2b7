"""P-values of query cells that resemble no label of the reference."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scvi.utils import track

from betavi import _blocks
from betavi.diagnostics import fit_novelty, thin
from betavi.model.setup.messages import name_some, warn
from betavi.model.support.features import log_values, raw_counts
from betavi.model.support.support import SHARES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from scipy import sparse
    from scvi._types import AnnOrMuData

    from betavi.diagnostics import NoveltyTest
    from betavi.model.core.latent_model import LatentModel
    from betavi.model.support.labels import Reference


def novelty_p_values(
    model: LatentModel,
    adata: AnnOrMuData,
    names: Sequence[str],
    cells: np.ndarray,
    reference: Reference,
    show_progress: bool,
) -> np.ndarray:
    """Return a p-value of each cell, NaN without counts.

    Modalities are combined by the smallest p-value times their number (Bonferroni).
    """
    found = []
    starts = range(0, len(cells), _blocks.DENSE_CELLS)
    for start in track(starts, description="Testing cells", disable=not show_progress):
        block = cells[start : start + _blocks.DENSE_CELLS]
        parts = [_p_values(model, adata, name, block, reference) for name in names]
        # a cell without counts in one modality is tested in the others
        is_tested = ~np.isnan(parts).all(axis=0)
        least = np.min(np.where(np.isnan(parts), 1.0, parts), axis=0)
        found.append(np.where(is_tested, np.minimum(len(names) * least, 1.0), np.nan))
    p_value = np.concatenate(found)
    if (is_empty := np.isnan(p_value)).any():
        warn(
            f"{is_empty.sum()} cell(s) have no counts, and therefore no p-value (NaN). They are "
            f"called unknown: {name_some(adata.obs_names[cells[is_empty]])}."
        )
    return p_value


def _p_values(
    model: LatentModel, adata: AnnOrMuData, name: str, cells: np.ndarray, reference: Reference
) -> np.ndarray:
    stored = f"unknown cells of {reference.key[0]} in {name}"
    test = model.cached(stored, reference.key, lambda: _fitted(model, name, reference))
    counts = raw_counts(model, adata, name, cells)
    p_value = test.p_value(log_values(model, name, counts), _log_depth(counts))
    is_empty = model.likelihood(name).is_of_counts & (_totals(counts) <= 0)
    return np.where(is_empty, np.nan, p_value)


def _fitted(model: LatentModel, name: str, reference: Reference) -> NoveltyTest:
    """Fit the test on labelled cells, with all and with some of their molecules."""
    has = reference.has[name]
    counts = raw_counts(model, model.adata, name, reference.cells[has])
    # non-integer values are not thinned
    is_whole = bool((counts.data == np.round(counts.data)).all())
    copies = [counts]
    for seed, share in enumerate(SHARES[1:] if is_whole else ()):
        copies.append(thin(counts, 1 - share, seed).kept)
    logs = [log_values(model, name, copy) for copy in copies]
    return fit_novelty(logs, np.stack([_log_depth(copy) for copy in copies]), reference.codes[has])


def _totals(counts: sparse.csr_matrix) -> np.ndarray:
    return np.asarray(counts.sum(axis=1)).ravel()


def _log_depth(counts: sparse.csr_matrix) -> np.ndarray:
    depth: np.ndarray = np.log(np.maximum(_totals(counts), 1.0))
    return depth
