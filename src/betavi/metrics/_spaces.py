"""Latent spaces, labels and factors for :func:`disentanglement`, with their checks."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse
from sklearn.decomposition import PCA, FastICA
from sklearn.exceptions import ConvergenceWarning

MOST_ITERATIONS, N_STARTS = 500, 5
FEWEST_CELLS = 20  # with factors, because trees are fitted to a half of the cells


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
    array = np.asarray(values)
    if array.ndim != 2 or array.shape[1] == 0:
        raise ValueError(
            f"`{name}` must have two axes, cells and columns, not the shape {array.shape}. For one "
            f"column, pass {name}[:, None]."
        )
    return array


def check_length(name: str, values: Any, n_cells: int) -> None:
    """Raise a ValueError unless there is one row per cell."""
    length = values.shape[0] if hasattr(values, "shape") else len(values)
    if length != n_cells:
        raise ValueError(
            f"`{name}` has {length} rows, but `z` has {n_cells} cells. Pass one row per cell, in "
            "the same order."
        )


def read_labels(labels: Any, n_cells: int) -> pd.Categorical:
    """Return the label of each cell, without unused categories. Missing labels remain missing."""
    check_length("labels", labels, n_cells)
    if np.ndim(labels) != 1:
        raise ValueError(
            f"`labels` must have one axis, not the shape {np.shape(labels)}. Pass one label per "
            "cell, or continuous values as `factors`."
        )
    found = pd.Categorical(labels).remove_unused_categories()
    sizes = found.value_counts().drop(np.nan, errors="ignore")
    if len(sizes) < 2:
        raise ValueError(
            f"`labels` has {len(sizes)} label: {sizes.index.tolist()}. Pass at least two labels, "
            "because each label is compared with the other cells."
        )
    few = sizes.index[sizes < 2]
    if len(few):
        raise ValueError(
            f"{len(few)} of {len(sizes)} labels have one cell, e.g. {few[0]!r}. Merge these labels "
            "with others, or set them to None to drop their cells. Pass continuous values as "
            "`factors`."
        )
    return found


def read_factors(factors: Any, n_cells: int) -> pd.DataFrame:
    """Return the value of each cell and factor."""
    named = factors if isinstance(factors, pd.DataFrame) else _two_dim("factors", factors)
    check_length("factors", named, n_cells)
    found = read_numbers("factors", named, "factor")
    for name, values in found.items():
        if values.min() == values.max():
            raise ValueError(f"The factor {name!r} is {values.iloc[0]:g} in all cells. Drop it.")
    if n_cells < FEWEST_CELLS:
        raise ValueError(
            f"Only {n_cells} cells were passed. With `factors`, pass at least {FEWEST_CELLS}."
        )
    return found


def read_expression(log_expression: Any, n_cells: int, n_dimensions: int) -> Any:
    """Return log expression, sparse or dense, if it has enough cells and genes."""
    is_sparse = sparse.issparse(log_expression)
    values = sparse.csr_array(log_expression) if is_sparse else np.asarray(log_expression)
    check_length("log_expression", values, n_cells)
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
    return values.astype(np.float64)


def linear_spaces(values: Any, n_dimensions: int, seed: int) -> dict[str, np.ndarray]:
    """Return principal and independent components of cells, ``(n_cells, n_dimensions)``."""
    components = PCA(n_dimensions, svd_solver="arpack", random_state=seed).fit_transform(values)
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
