"""Clusters of real data that lie between two other clusters, and the place where they lie."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING, Any, NamedTuple

import mudata
import numpy as np
import scanpy as sc
from scipy import sparse
from sklearn.decomposition import PCA

from benchmarks.peers import REAL, UNSEEN, real_folder

if TYPE_CHECKING:
    from collections.abc import Iterator

    from anndata import AnnData

N_COMPONENTS = 30
N_TESTED, N_CHOICE = 3, 2
"""Clusters of the pancreas, by their detour: the first are tested, the next served the choice."""

T_CELLS = ("naive CD4", "memory CD4", "Treg", "naive CD8", "memory CD8")
MIXTURES = {"6": ("centre", "3"), "7": ("centre", "4"), "8": ("centre", "5")}
"""Mixtures of RNA that are by design halfway between the even mixture and a pure cell line."""


class Middle(NamedTuple):
    """Cluster, the clusters around it, and its place beside the line between their centres.

    ``detour`` is the relative length of the way through the centre of the cluster. ``share`` is the
    point of the line that is nearest to this centre, from 0 (first end) to 1 (second end).
    """

    name: str
    ends: tuple[str, str]
    detour: float
    share: float


class Case(NamedTuple):
    """Data, use of the case (``"test"`` or ``"choice"``), cells, and the cluster to leave out."""

    data: str
    use: str
    adata: AnnData
    middle: Middle


def logs(counts: Any) -> np.ndarray:
    """Return log(1 + counts per 10,000)."""
    counts = sparse.csr_matrix(counts)
    totals = np.asarray(counts.sum(axis=1)).ravel()
    return np.log1p((sparse.diags(1e4 / np.maximum(totals, 1)) @ counts).toarray())


def centres_of(adata: AnnData) -> dict[str, np.ndarray]:
    """Return the centre of each cluster in principal components."""
    places = PCA(N_COMPONENTS, random_state=0).fit_transform(logs(adata.X))
    clusters = adata.obs["clusters"].astype(str).to_numpy()
    return {name: places[clusters == name].mean(axis=0) for name in sorted(set(clusters))}


def placed(centres: dict[str, np.ndarray], name: str, ends: tuple[str, str]) -> Middle:
    """Return a cluster with its place between two others."""
    first, last = (centres[end] - centres[name] for end in ends)
    line = last - first
    length = np.linalg.norm(line)
    detour = (np.linalg.norm(first) + np.linalg.norm(last)) / length
    return Middle(name, ends, float(detour), float(-first @ line / length**2))


def middles(adata: AnnData, n_middles: int) -> list[Middle]:
    """Return the clusters with the smallest detour between any two others."""
    centres = centres_of(adata)
    found = [
        min(
            (
                placed(centres, name, ends)
                for ends in combinations(other_clusters(centres, name), 2)
            ),
            key=lambda middle: middle.detour,
        )
        for name in centres
    ]
    return sorted(found, key=lambda middle: middle.detour)[:n_middles]


def other_clusters(centres: dict[str, np.ndarray], name: str) -> list[str]:
    """Return the other clusters."""
    return [other for other in centres if other != name]


def mixtures() -> AnnData:
    """Return mixtures of RNA of three cell lines. The two even mixtures are one cluster."""
    adata = UNSEEN["RNAmix"].read()
    names = adata.obs["mix"].astype(int).astype(str)
    adata.obs["clusters"] = names.replace({"1": "centre", "2": "centre"})
    return adata


def t_cells() -> AnnData:
    """Return the T cells of pbmc10k with 2,000 variable genes."""
    adata = mudata.read_h5mu(real_folder() / "pbmc10k_6855x4000.h5mu")["rna"]
    adata = adata[adata.obs["cell_type_l2"].isin(T_CELLS)].copy()
    adata.X = sparse.csr_matrix(adata.X, dtype=np.float32)
    sc.pp.highly_variable_genes(adata, n_top_genes=2000, flavor="seurat_v3", subset=True)
    adata.obs["clusters"] = adata.obs["cell_type_l2"].astype(str)
    return adata


def cases() -> Iterator[Case]:
    """Yield all clusters to leave out."""
    pancreas = REAL["pancreas"].read()
    for rank, middle in enumerate(middles(pancreas, N_TESTED + N_CHOICE)):
        yield Case("pancreas", "test" if rank < N_TESTED else "choice", pancreas, middle)
    mixed = mixtures()
    centres = centres_of(mixed)
    for name, ends in MIXTURES.items():
        yield Case("RNAmix", "test", mixed, placed(centres, name, ends))
    cells = t_cells()
    for middle in middles(cells, N_TESTED):
        yield Case("T cells", "choice", cells, middle)
