"""Relations of latent dimensions to labels and covariates."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.special import entr
from sklearn.metrics import mutual_info_score

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
    found = {}
    bins = [np.digitize(x, np.linspace(x.min(), x.max(), N_BINS + 1)[1:-1]) for x in values.T]
    for label in np.unique(labels):
        is_in = labels == label
        entropy = entr([is_in.mean(), 1 - is_in.mean()]).sum()
        found[label] = [max(mutual_info_score(is_in, part), 0.0) / entropy for part in bins]
    return pd.DataFrame(found)


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
