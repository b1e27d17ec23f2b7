"""Relations of latent dimensions to labels and covariates."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.optimize import linear_sum_assignment
from scipy.special import entr

N_BINS = 10
"""Number of equal-width bins of a dimension for its information about a label, as in DRVI."""


def label_information(values: np.ndarray, labels: np.ndarray) -> pd.DataFrame:
    """Return the information of each dimension about membership in each label, from 0 to 1.

    Mutual information of ten equal-width bins of the dimension and membership, divided by the
    entropy of the membership.

    Parameters
    ----------
    values
        Latent positions, ``(n_cells, n_latent)``.
    labels
        Label of each cell, ``(n_cells,)``, at least two different ones.

    Returns
    -------
    Scores, one row for each dimension, one column for each label.

    References
    ----------
    Moinfar & Theis (2024), Unsupervised deep disentangled representation of single-cell omics.

    Examples
    --------
    >>> label_information(np.array([[0.0], [0.1], [0.9], [1.0]]), np.array(list("aabb")))
         a    b
    0  1.0  1.0
    """
    names, codes = np.unique(labels, return_inverse=True)
    return pd.DataFrame(membership_information(equal_bins(N_BINS, values), codes), columns=names)


def axis_scores(scores: np.ndarray) -> dict[str, float]:
    """Return LMS, MSAS and MSGS of scores, ``(n_dimensions, n_labels)``.

    Parameters
    ----------
    scores
        Score of each dimension for each label, from 0 to 1.

    Returns
    -------
    ``LMS``, the mean score in the best one-to-one match of dimensions and labels, with 0 for labels
    without a dimension; ``MSAS``, the mean over labels of the best score; ``MSGS``, the mean gap
    between the best and the second-best score.

    References
    ----------
    Moinfar & Theis (2024), Unsupervised deep disentangled representation of single-cell omics.

    Examples
    --------
    >>> axis_scores(np.array([[1.0, 0.5], [0.75, 0.25]]))
    {'LMS': 0.625, 'MSAS': 0.75, 'MSGS': 0.25}
    """
    rows, columns = linear_sum_assignment(scores, maximize=True)
    # a single dimension has no second-best one, which counts as 0
    top = np.sort(np.vstack([scores, np.zeros(scores.shape[1])]), axis=0)
    return {
        "LMS": float(scores[rows, columns].sum() / scores.shape[1]),
        "MSAS": float(top[-1].mean()),
        "MSGS": float((top[-1] - top[-2]).mean()),
    }


def equal_bins(n_bins: int, values: np.ndarray) -> np.ndarray:
    """Return equal-width bins of each column, from its smallest to its largest value."""
    bins = np.zeros(values.shape, dtype=np.int64)
    for column, cells in enumerate(values.T):
        edges = np.linspace(cells.min(), cells.max(), n_bins + 1)[1:-1]
        if cells.min() < cells.max():
            bins[:, column] = np.searchsorted(edges, cells, side="right")
    return bins


def contingency(bins: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return numbers of cells, ``(n_dimensions, n_bins, n_labels)``."""
    n_bins, n_labels, n_dimensions = bins.max() + 1, labels.max() + 1, bins.shape[1]
    codes = (np.arange(n_dimensions) * n_bins + bins) * n_labels + labels[:, None]
    counts = np.bincount(codes.ravel(), minlength=n_dimensions * n_bins * n_labels)
    return counts.reshape(n_dimensions, n_bins, n_labels)


def membership_information(bins: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the information of binned dimensions about membership, ``(n_dimensions, n_labels)``.

    ``bins`` are ``(n_cells, n_dimensions)``, and ``labels`` codes of all labels, ``(n_cells,)``.
    """
    n_cells = len(labels)
    inside = contingency(bins, labels)
    bin_sizes = inside.sum(axis=2, keepdims=True)
    of_bins = entr(bin_sizes / n_cells).sum(axis=1)
    joint = (entr(inside / n_cells) + entr((bin_sizes - inside) / n_cells)).sum(axis=1)
    share = np.bincount(labels) / n_cells
    of_labels = entr(share) + entr(1 - share)
    return np.asarray(np.clip((of_bins + of_labels - joint) / of_labels, 0, 1))


def variance_explained(values: np.ndarray, covariate: np.ndarray, is_code: bool) -> np.ndarray:
    """Return the share of each dimension's variance that a covariate explains, ``(n_latent,)``.

    Parameters
    ----------
    values
        Latent positions, ``(n_cells, n_latent)``.
    covariate
        Codes of categories, or numbers, ``(n_cells,)``.
    is_code
        True for codes of categories. The share is then the variance of the means of the categories.
        For numbers, it is the squared correlation.

    Returns
    -------
    Shares from 0 to 1. 0 for a constant dimension or covariate.

    Examples
    --------
    >>> variance_explained(np.array([[0.0], [0.0], [1.0], [1.0]]), np.array([0, 0, 1, 1]), True)
    array([1.])
    """
    centred = values - values.mean(axis=0)
    total = np.square(centred).sum(axis=0)
    if is_code:
        _, codes, sizes = np.unique(covariate, return_inverse=True, return_counts=True)
        sums = np.stack([np.bincount(codes, column) for column in centred.T], axis=1)
        explained = (np.square(sums) / sizes[:, None]).sum(axis=0)
    else:
        numbers = covariate - np.mean(covariate)
        spread = np.square(numbers).sum()
        explained = np.square(numbers @ centred) / spread if spread > 0 else np.zeros_like(total)
    return np.divide(explained, total, out=np.zeros_like(total), where=total > 0)
