"""Sums of counts over groups of cells, and how much counts of single cells vary beyond Poisson."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy import sparse

if TYPE_CHECKING:
    from collections.abc import Iterable

PSEUDOCOUNT = 0.5
"""Count that is added to each feature, so that no feature is impossible. Not tuned."""

PRIOR_COUNTS = 20.0
"""Number of counts that the mean inflation of features with few counts is worth. Not tuned."""


class GroupSums(NamedTuple):
    """Sums over the cells of each group.

    Parameters
    ----------
    counts
        Sums of counts, ``(n_groups, n_features)``.
    squares
        Sums of squared counts, ``(n_groups, n_features)``.
    by_size
        Sums of counts times the total count of their cell, ``(n_groups, n_features)``.
    size_squares
        Sums of squared totals, ``(n_groups,)``.
    n_cells
        Numbers of cells, ``(n_groups,)``.

    Examples
    --------
    >>> sums = sum_groups([(sparse.csr_array(np.eye(2)), np.array([0, 0]))], 1, 2)
    >>> sums.n_cells.tolist()
    [2.0]
    """

    counts: np.ndarray
    squares: np.ndarray
    by_size: np.ndarray
    size_squares: np.ndarray
    n_cells: np.ndarray


def log_shares(counts: np.ndarray) -> np.ndarray:
    """Return the log share of each feature in all counts, ``(n_features,)``, with a pseudocount.

    Examples
    --------
    >>> log_shares(np.array([[3.0, 0.0], [1.0, 0.0]])).round(2).tolist()
    [-0.11, -2.3]
    """
    totals = counts.sum(axis=0) + PSEUDOCOUNT
    shares: np.ndarray = np.log(totals / totals.sum())
    return shares


def sum_groups(
    blocks: Iterable[tuple[sparse.csr_array, np.ndarray]], n_groups: int, n_features: int
) -> GroupSums:
    """Return sums over groups, from blocks of counts and the groups of their cells.

    Parameters
    ----------
    blocks
        Pairs of counts, ``(n_cells, n_features)``, and codes of groups, ``(n_cells,)``.
    n_groups, n_features
        Numbers of groups and features.

    Returns
    -------
    Sums of all blocks.

    Examples
    --------
    >>> counts = sparse.csr_array(np.array([[1, 2], [3, 0], [0, 5]]))
    >>> sum_groups([(counts, np.array([0, 0, 1]))], 2, 2).counts.tolist()
    [[4.0, 2.0], [0.0, 5.0]]
    """
    total, squares, by_size = (np.zeros((n_groups, n_features)) for _ in range(3))
    size_squares, n_cells = np.zeros(n_groups), np.zeros(n_groups)
    for counts, codes in blocks:
        counts = sparse.csr_array(counts, dtype=np.float64)
        sizes = counts.sum(axis=1)
        cells = np.arange(len(codes))
        member = sparse.csr_array((np.ones(len(codes)), (codes, cells)), (n_groups, len(codes)))
        total += (member @ counts).toarray()
        squares += (member @ counts.power(2)).toarray()
        by_size += (member @ (sparse.diags_array(sizes) @ counts)).toarray()
        size_squares += member @ sizes**2
        n_cells += np.bincount(codes, minlength=n_groups)
    return GroupSums(total, squares, by_size, size_squares, n_cells)


def inflation(sums: GroupSums) -> np.ndarray:
    """Return the variance of counts over their mean, within groups, ``(n_features,)``, at least 1.

    Counts of a Poisson distribution have 1. Cells in different states, or molecules that were counted
    several times, have more. The sum over a group then varies by this factor more. Features with few
    counts are shrunk towards the mean of these features.

    Parameters
    ----------
    sums
        Sums over groups of cells.

    Returns
    -------
    Variance over mean, ``(n_features,)``.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> counts = sparse.csr_array(8 * rng.poisson(1.0, size=(500, 30)))
    >>> sums = sum_groups([(counts, np.zeros(500, dtype=int))], 1, 30)
    >>> bool((np.abs(inflation(sums) - 8) < 2).all())
    True
    """
    totals = sums.counts.sum(axis=1, keepdims=True)
    shares = sums.counts / np.maximum(totals, 1.0)
    squares = sums.squares - 2 * shares * sums.by_size + shares**2 * sums.size_squares[:, None]
    # the share was estimated from the same cells, most of all from those with large totals
    lost = sums.size_squares[:, None] / np.maximum(totals, 1.0) ** 2
    measured = (sums.counts * (1 - lost)).sum(axis=0)
    ratio = squares[sums.n_cells > 1].sum(axis=0) / (measured + PRIOR_COUNTS)
    trust = measured / (measured + PRIOR_COUNTS)
    few = 1 - trust
    common = few @ ratio / (few @ trust) if trust.any() else 1.0
    return np.maximum(ratio + few * common, 1.0)


def inflation_of_groups(inflation: np.ndarray, rate: np.ndarray) -> np.ndarray:
    """Return the variance of each group's counts over their mean, ``(n_groups, n_features)``.

    The excess over 1 grows in proportion to the share of a feature, as for counts with a negative binomial
    distribution. Its mean over all counts is that of ``inflation``.

    Parameters
    ----------
    inflation
        Variance over mean within groups, ``(n_features,)``, see :func:`inflation`.
    rate
        Expected counts, ``(n_groups, n_features)``.

    Returns
    -------
    Variance over mean, ``(n_groups, n_features)``.

    Examples
    --------
    >>> inflation_of_groups(np.array([3.0, 3.0]), np.array([[10.0, 90], [30, 70]])).round(1).tolist()
    [[1.8, 3.2], [3.4, 2.7]]
    """
    shares = rate / np.maximum(rate.sum(axis=1, keepdims=True), np.finfo(float).tiny)
    usual = (rate * shares).sum(axis=0) / np.maximum(rate.sum(axis=0), np.finfo(float).tiny)
    found: np.ndarray = 1 + (inflation - 1) * shares / np.maximum(usual, np.finfo(float).tiny)
    return found
