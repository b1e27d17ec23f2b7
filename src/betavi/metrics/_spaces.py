"""Latent spaces for :func:`disentanglement`, with their checks."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse
from sklearn.decomposition import PCA, FastICA
from sklearn.exceptions import ConvergenceWarning

from betavi.diagnostics.dimension_relations import equal_bins

MOST_ITERATIONS, N_STARTS = 500, 5
SMALLEST_SPREAD = 1e-8  # of a principal component, as a share of the first one's
OUTLYING_SHARE = 0.005  # at most this share of cells is outside one bin where a warning is given


def read_numbers(name: str, values: Any, column: str) -> pd.DataFrame:
    """Return finite numbers with one row per cell, named as in a DataFrame or by position."""
    table = values if isinstance(values, pd.DataFrame) else pd.DataFrame(_two_dim(name, values))
    for label, kind in table.dtypes.items():
        if not (pd.api.types.is_numeric_dtype(kind) or pd.api.types.is_bool_dtype(kind)):
            raise TypeError(
                f"`{name}` must hold numbers, but the {column} {label!r} has the type {kind}. "
                "Convert it to numbers, or pass categories as `labels`."
            )
    numbers = table.to_numpy(dtype=np.float64, na_value=np.nan)
    wrong = np.argwhere(~np.isfinite(numbers))
    if len(wrong):
        row, place = wrong[0]
        raise ValueError(
            f"`{name}` has {len(wrong)} values that are not finite, the first at cell "
            f"{table.index[row]!r}, {column} {table.columns[place]!r}. Drop these cells."
        )
    return pd.DataFrame(numbers, table.index, table.columns)


def _two_dim(name: str, values: Any) -> np.ndarray:
    array = values.toarray() if sparse.issparse(values) else np.asarray(values)
    if array.ndim != 2 or array.shape[1] == 0:
        raise ValueError(
            f"`{name}` must have two axes, cells and columns, not the shape {array.shape}. For one "
            f"column, pass {name}[:, None]."
        )
    return array


def check_rows(name: str, values: Any, z: Any) -> None:
    """Raise a ValueError unless there is one row per cell, in the same order where both have names."""
    length, n_cells = (
        part.shape[0] if hasattr(part, "shape") else len(part) for part in (values, z)
    )
    if length != n_cells:
        raise ValueError(
            f"`{name}` has {length} rows, but `z` has {n_cells} cells. Pass one row per cell, in "
            "the same order."
        )
    names = [part.index for part in (values, z) if isinstance(part, pd.DataFrame | pd.Series)]
    # by element, because indices of the same texts in two types are not equal
    pairs = zip(*names, strict=True) if len(names) == 2 else ()
    wrong = [(row, *pair) for row, pair in enumerate(pairs) if pair[0] != pair[1]]
    if wrong:
        row, one, other = wrong[0]
        raise ValueError(
            f"`{name}` and `z` have different cells in {len(wrong)} rows, e.g. {one!r} and {other!r} "
            f"in row {row}. Pass `{name}.loc[z.index]`. If rows are in the same order, pass "
            f"`{name}.to_numpy()`."
        )


def read_expression(log_expression: Any, n_dimensions: int) -> Any:
    """Return log expression, sparse or dense, if it has enough cells and genes."""
    is_sparse = sparse.issparse(log_expression)
    values = sparse.csr_array(log_expression) if is_sparse else np.asarray(log_expression)
    if min(values.shape) <= n_dimensions:
        raise ValueError(
            f"`log_expression` has the shape {values.shape}. PCA with as many dimensions as `z` "
            f"needs more than {n_dimensions} cells and genes."
        )
    numbers = np.asarray(values.data if is_sparse else values)
    if not np.isfinite(numbers).all():
        raise ValueError("`log_expression` has values that are not finite. Replace them first.")
    if numbers.size and numbers.max() > 1 and (numbers == np.floor(numbers)).all():
        raise ValueError(
            "`log_expression` holds only whole numbers, as raw counts do. Normalise counts, and "
            "pass their logarithms, such as np.log1p(counts per 10,000)."
        )
    if not (values.max(axis=0) != values.min(axis=0)).sum():
        raise ValueError("`log_expression` is the same in all cells. Pass genes that vary.")
    return values.astype(np.float64)


def linear_spaces(values: Any, n_dimensions: int, seed: int) -> dict[str, np.ndarray]:
    """Return principal and independent components of cells, ``(n_cells, n_dimensions)``."""
    pca = PCA(n_dimensions, svd_solver="arpack", random_state=seed)
    components = pca.fit_transform(values)
    spread = pca.singular_values_
    n_directions = int((spread > SMALLEST_SPREAD * spread[0]).sum())
    if n_directions < n_dimensions:
        raise ValueError(
            f"`log_expression` has {n_directions} independent genes, but `z` has {n_dimensions} "
            "dimensions. PCA with as many dimensions needs as many genes that are no sums of others. "
            "Pass all genes, not a few or a matrix of low rank, or leave `log_expression` out."
        )
    for start in range(N_STARTS):
        # with the default contrast, more starts fail to converge, and optima depend on the start
        ica = FastICA(
            whiten="unit-variance", fun="exp", max_iter=MOST_ITERATIONS, random_state=seed + start
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            independent = ica.fit_transform(components)
        if ica.n_iter_ < MOST_ITERATIONS:
            break
    else:
        warnings.warn(
            f"FastICA did not converge in {N_STARTS} starts, so the rows of ICA depend on the seed. "
            "Compare several seeds, or pass fewer dimensions.",
            stacklevel=3,
        )
    return {"PCA": components, "ICA": independent}


def warn_outlying(latent: pd.DataFrame, n_bins: int) -> None:
    """Warn of dimensions with almost all cells in one bin, because bins reach to outlying cells."""
    bins = equal_bins(n_bins, latent.to_numpy())
    outside = len(latent) - np.array([np.bincount(column).max() for column in bins.T])
    wrong = np.flatnonzero((outside > 0) & (outside <= max(1, OUTLYING_SHARE * len(latent))))
    if len(wrong):
        first = wrong[0]
        warnings.warn(
            f"{len(wrong)} of {len(outside)} dimensions have almost all cells in one of {n_bins} "
            f"bins. In dimension {latent.columns[first]!r}, {outside[first]} cells are outside it. "
            "Bins of equal width reach to the most outlying cells, which lowers the scores. If these "
            "cells are no label of their own, clip `z`: np.clip(z, *np.quantile(z, [0.01, 0.99], "
            "axis=0)).",
            stacklevel=3,
        )
