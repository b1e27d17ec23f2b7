"""Simulated modalities of the same cells, with known truth."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse, special

from betavi._mudata import assembled
from betavi.datasets.draws import draw_negative_binomial
from betavi.datasets.simulate import simulate_counts

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from mudata import MuData
    from numpy.random import Generator

PEAK_DEPTH = 300.0
LOADINGS_OF_PEAKS = 0.7
BACKGROUND, FOREGROUND = 5.0, 20.0
"""Mean background count of an antibody, and factor of the foreground."""

SLOPE = 3.0
THETA_OF_PROTEINS = 5.0


def simulate_multiome(
    n_cells: int = 1000,
    n_genes: int = 200,
    n_proteins: int = 15,
    n_peaks: int = 300,
    n_factors: int = 5,
    n_types: int = 5,
    n_batches: int = 1,
    missing: Mapping[str, float] | None = None,
    seed: int = 0,
) -> MuData:
    """Simulate RNA, surface protein and chromatin of cells with the same latent factors.

    Parameters
    ----------
    n_cells
        Number of cells.
    n_genes, n_proteins, n_peaks
        Numbers of features of ``rna``, ``adt`` and ``atac``. A modality with 0 features is left
        out.
    n_factors, n_types, n_batches, seed
        See :func:`simulate_counts`.
    missing
        Share of the cells that lack a modality, by name of the modality. Every cell has at least
        one.

    Returns
    -------
    MuData with up to three modalities. Counts of ``rna`` are zero-inflated negative binomial.
    Counts of ``adt`` are negative binomial. Their mean is a foreground where
    ``layers["is_foreground"]`` is True, and a background elsewhere. Counts of ``atac`` are Poisson.
    ``obs`` has ``cell_type`` and ``batch``, and ``obsm["z"]`` has the factors.

    Raises
    ------
    ValueError
        If a number is out of range.

    Examples
    --------
    >>> import betavi
    >>> mdata = betavi.datasets.simulate_multiome(n_cells=100, missing={"adt": 0.5})
    >>> sorted(mdata.mod), mdata["adt"].n_obs < mdata.n_obs == 100
    (['adt', 'atac', 'rna'], True)
    """
    shares = dict(missing or {})
    if not all(0 <= share <= 1 for share in shares.values()):
        raise ValueError(f"`missing` must hold shares between 0 and 1, not {missing}.")
    rng = np.random.default_rng(seed)
    rna = simulate_counts(n_cells, max(n_genes, 1), n_factors, n_types, n_batches, seed=seed)
    makers: dict[str, tuple[int, Callable[[], AnnData]]] = {
        "rna": (n_genes, rna.copy),
        "adt": (n_proteins, lambda: _proteins(rng, rna.obsm["z"], n_proteins)),
        "atac": (n_peaks, lambda: _peaks(rng, rna.obsm["z"], n_peaks)),
    }
    parts = {name: make() for name, (number, make) in makers.items() if number}
    if unknown := sorted(set(shares) - set(parts)):
        known = ", ".join(parts)
        raise ValueError(f"`missing` has the unknown modality {unknown[0]!r}. Choose from {known}.")
    has = _draw_present(rng, {name: shares.get(name, 0.0) for name in parts}, n_cells)
    for name, part in parts.items():
        part.obs_names = rna.obs_names
        parts[name] = part[has[name]].copy()
        parts[name].obs = parts[name].obs[[]]
        parts[name].obsm.clear()
    mdata = assembled(parts)
    mdata.obs = rna.obs.loc[mdata.obs_names, ["cell_type", "batch"]]
    mdata.obsm["z"] = rna[mdata.obs_names].obsm["z"]
    return mdata


def _draw_present(
    rng: Generator, shares: Mapping[str, float], n_cells: int
) -> dict[str, np.ndarray]:
    """Return a mask of the cells with each modality. Every cell has at least one modality."""
    names = list(shares)
    has = rng.random((n_cells, len(names))) >= np.array([shares[name] for name in names])
    nothing = np.flatnonzero(~has.any(axis=1))
    has[nothing, rng.integers(len(names), size=len(nothing))] = True
    return dict(zip(names, has.T, strict=True))


def _proteins(rng: Generator, z: np.ndarray, n_features: int) -> AnnData:
    loadings = rng.normal(size=(n_features, z.shape[1]))
    is_on = rng.random((len(z), n_features)) < special.expit(SLOPE * z @ loadings.T)
    size = np.exp(0.2 * rng.normal(size=(len(z), 1)))
    mean = BACKGROUND * np.exp(0.5 * rng.normal(size=n_features)) * size
    mean = mean * np.where(is_on, FOREGROUND, 1.0)
    counts = draw_negative_binomial(rng, mean, THETA_OF_PROTEINS)
    adata = AnnData(sparse.csr_matrix(counts.astype(np.int32)), var=_names("protein", n_features))
    adata.layers["is_foreground"] = is_on
    return adata


def _peaks(rng: Generator, z: np.ndarray, n_features: int) -> AnnData:
    loadings = LOADINGS_OF_PEAKS * rng.normal(size=(n_features, z.shape[1]))
    scale = special.softmax(z @ loadings.T + rng.normal(size=n_features), axis=1)
    depth = PEAK_DEPTH * np.exp(0.3 * rng.normal(size=(len(z), 1)))
    counts = rng.poisson(depth * scale)
    return AnnData(sparse.csr_matrix(counts.astype(np.int32)), var=_names("peak", n_features))


def _names(kind: str, number: int) -> pd.DataFrame:
    return pd.DataFrame(index=[f"{kind}_{i}" for i in range(number)])
