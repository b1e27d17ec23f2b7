"""Normal equations of all features: one small system each, solved in blocks."""

from __future__ import annotations

import numpy as np
from scipy import sparse

BLOCK_VALUES = 2**24
"""Entries of all features' matrices that are in memory at once: 128 MiB."""


def cavity(
    mean: np.ndarray, variance: np.ndarray, precision: np.ndarray, shift: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and variance of marginals, without the prior of their own effect."""
    remaining = np.maximum(1 / variance - precision, 1e-6)
    return (mean / variance - shift) / remaining, 1 / remaining


def sums_by(values: np.ndarray, codes: np.ndarray, n_codes: int) -> np.ndarray:
    """Return sums of the rows with each code, ``(n_codes, n_features)``."""
    cells = np.arange(len(codes))
    sums: np.ndarray = (
        sparse.csr_array((np.ones(len(codes)), (codes, cells)), (n_codes, len(codes))) @ values
    )
    return sums


def blocks_of(shape: tuple[int, ...]) -> list[slice]:
    """Return blocks of features, from the numbers of columns and features."""
    n_columns, n_features = shape
    step = max(1, BLOCK_VALUES // n_columns**2)
    return [slice(start, start + step) for start in range(0, n_features, step)]


def hessian_of(rows: np.ndarray, weights: np.ndarray, precision: np.ndarray) -> np.ndarray:
    """Return precision matrices of all columns, ``(n_features, n_columns, n_columns)``."""
    n_columns = rows.shape[1]
    hessian = np.zeros((weights.shape[1], n_columns, n_columns))
    step = max(1, BLOCK_VALUES // n_columns**2)
    for start in range(0, len(rows), step):
        some = rows[start : start + step]
        products = np.einsum("rk,rl->rkl", some, some).reshape(len(some), -1)
        hessian += (weights[start : start + step].T @ products).reshape(hessian.shape)
    hessian[:, np.arange(n_columns), np.arange(n_columns)] += precision.T
    return hessian


def solve(
    rows: np.ndarray, weights: np.ndarray, precision: np.ndarray, score: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return posterior means and variances of all columns, ``(n_columns, n_features)``.

    Columns that share no row are independent given the others, and are eliminated first.
    """
    mean, variance = np.empty_like(score), np.empty_like(score)
    apart = without_shared_rows(rows)
    for some in blocks_of(score.shape):
        hessian = hessian_of(rows, weights[:, some], precision[:, some])
        links, own = hessian[:, ~apart][:, :, apart], hessian[:, apart, apart]
        scaled = links / own[:, None]
        rest = hessian[:, ~apart][:, :, ~apart] - scaled @ links.transpose(0, 2, 1)
        inverse, given = np.linalg.inv(rest), score[:, some].T
        found = (given[:, ~apart] - (scaled @ given[:, apart, None])[..., 0])[:, None] @ inverse
        mean[~apart, some] = found[:, 0].T
        mean[apart, some] = (given[:, apart] / own - (found @ scaled)[:, 0]).T
        variance[~apart, some] = np.diagonal(inverse, axis1=1, axis2=2).T
        variance[apart, some] = (1 / own + (scaled * (inverse @ scaled)).sum(axis=1)).T
    return mean, variance


def without_shared_rows(rows: np.ndarray) -> np.ndarray:
    """Return a mask of columns that share no row with each other, ``(n_columns,)``."""
    used = (rows != 0).astype(np.float64)
    shared = (used.T @ used) > 0
    np.fill_diagonal(shared, False)
    apart, n_shared = np.ones(len(shared), dtype=bool), shared.sum(axis=1)
    while n_shared.any():
        column = n_shared.argmax()
        apart[column] = False
        n_shared = np.where(apart, n_shared - shared[column], 0)
    return apart
