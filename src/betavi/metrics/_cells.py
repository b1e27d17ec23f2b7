"""Counts of cells for comparison, with their checks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from mudata import MuData
from scipy import sparse

from betavi._tables import close_matches
from betavi.data import counts_of

if TYPE_CHECKING:
    from anndata import AnnData

PER_CELL = 1e4


@dataclass(frozen=True, eq=False)
class Cells:
    """Counts, ``(n_cells, n_genes)``, and the group of each cell."""

    counts: sparse.csr_matrix
    groups: np.ndarray | None = None

    def __len__(self) -> int:
        return int(self.counts.shape[0])

    def of(self, cells: np.ndarray) -> Cells:
        """Return the given cells."""
        return Cells(self.counts[cells], None if self.groups is None else self.groups[cells])

    def some(self, n_cells: int, rng: np.random.Generator) -> Cells:
        """Return at most ``n_cells`` random cells."""
        return self.of(np.sort(rng.permutation(self.counts.shape[0])[:n_cells]))

    @property
    def logs(self) -> np.ndarray:
        """log(1 + counts per 10,000), dense."""
        totals = np.asarray(self.counts.sum(axis=1)).ravel()
        scaled = sparse.diags(PER_CELL / np.maximum(totals, 1)) @ self.counts
        return np.log1p(scaled.toarray())


def read_cells(name: str, adata: AnnData, layer: str | None, groupby: str | None = None) -> Cells:
    """Return the counts of an object, also if ``denoise`` moved them from ``X`` to a layer."""
    if isinstance(adata, MuData):
        modality = next(iter(adata.mod))
        raise TypeError(
            f"Only one modality can be compared, but the MuData of {name} has several: "
            f"{', '.join(map(repr, adata.mod))}. Pass one modality, for example mdata[{modality!r}]"
        )
    if layer is not None and layer not in adata.layers:
        layers = [word for word in adata.layers if word is not None]
        raise KeyError(f"The layer {layer!r} is missing in {name}. {close_matches(layer, layers)}")
    if groupby is not None and groupby not in adata.obs:
        raise KeyError(
            f"Column {groupby!r} is missing in obs of {name}. {close_matches(groupby, adata.obs)} "
            "Generated cells have the columns registered at setup, with the values of nearby "
            f"measured cells. Register the column: setup_anndata(..., labels_key={groupby!r})"
        )
    values = counts_of(adata, layer)
    if values is None:
        raise ValueError(f"X of {name} is empty. Pass the layer with the counts: layer=...")
    # a copy, because stored zeros are removed
    counts = sparse.csr_matrix(values, copy=True)
    wrong = counts.data[~np.isfinite(counts.data) | (counts.data < 0)]
    if wrong.size:
        raise ValueError(f"Counts of {name} must be finite and at least 0, not {wrong[0]:g}.")
    counts.eliminate_zeros()
    if not counts.nnz:
        raise ValueError(f"All counts are zero in {name}. Pass cells or a layer with counts.")
    groups = None if groupby is None else adata.obs[groupby].astype(str).to_numpy()
    return Cells(counts, groups)


def refuse_fractions(name: str, cells: Cells) -> None:
    """Raise a ValueError for normalised or denoised values.

    Any test would separate these from counts.
    """
    if (cells.counts.data != np.floor(cells.counts.data)).any():
        raise ValueError(
            f"{name} hold non-integer values, so they are not counts. Pass the layer with the "
            "counts: layer=..."
        )
