"""Information about cells in a latent space, in nats, computed from the posteriors."""

from __future__ import annotations

import numpy as np
from scipy.special import logsumexp
from sklearn.neighbors import NearestNeighbors

from betavi import _blocks

ACTIVE = 0.1  # least information of an active dimension, nats
MOST_CELLS = 2000  # of a mixture: its cost grows with the square of the number of cells
NEIGHBOURS = 15


def dimension_information(loc: np.ndarray, scale: np.ndarray) -> np.ndarray:
    r"""Return the information of each dimension about a cell, for normally distributed positions.

    The information is :math:`\frac12 (\log \mathrm{Var}\,z_j - E \log \sigma_j^2)`, the mean
    divergence of the posteriors from the normal distribution with their common mean and variance.
    The information does not depend on the prior or on the units of z.

    Parameters
    ----------
    loc, scale
        Means and standard deviations of the posteriors, ``(n_cells, n_latent)``.

    Returns
    -------
    Information, nats, at least 0, ``(n_latent,)``.

    Examples
    --------
    >>> dimension_information(np.array([[-1.0, 0.0], [1.0, 0.0]]), np.ones((2, 2))).round(3)
    array([0.347, 0.   ])
    """
    total = loc.var(axis=0) + np.square(scale).mean(axis=0)
    return (np.log(total) - np.log(np.square(scale)).mean(axis=0)) / 2


def active_dimensions(loc: np.ndarray, scale: np.ndarray, threshold: float = ACTIVE) -> int:
    """Return the number of dimensions with more than ``threshold`` nats of information.

    Burda et al. (2016, Importance weighted autoencoders) count dimensions with a variance of the
    posterior mean above 0.01. A variance of 0.01 is about 0.005 nats, which noise can exceed.

    Parameters
    ----------
    loc, scale
        Means and standard deviations of the posteriors, ``(n_cells, n_latent)``.
    threshold
        Least information of an active dimension, nats.

    Returns
    -------
    A number between 0 and ``n_latent``.

    Examples
    --------
    >>> active_dimensions(np.array([[-1.0, 0.0], [1.0, 0.0]]), np.ones((2, 2)))
    1
    """
    return int((dimension_information(loc, scale) > threshold).sum())


def mutual_information(
    loc: np.ndarray, scale: np.ndarray, rng: np.random.Generator | int = 0
) -> float:
    r"""Estimate the mutual information between a cell and its latent position.

    The estimate is the mean of :math:`\log q(z | x) - \log q(z)` over one draw from each posterior.
    :math:`q(z)` is the mean of the posteriors of at most 2,000 random cells. The estimate cannot
    exceed the log of the number of these cells: 7.6 nats for 2,000 cells and 5.7 nats for 300. A
    value near this limit is only a lower bound.

    Parameters
    ----------
    loc, scale
        Means and standard deviations of the posteriors, ``(n_cells, n_latent)``.
    rng
        Generator or seed of the draws.

    Returns
    -------
    Mutual information, nats.

    References
    ----------
    Hoffman & Johnson (2016), ELBO surgery.

    Examples
    --------
    >>> round(mutual_information(100.0 * np.arange(8)[:, None], np.ones((8, 1))), 2)  # log(8)
    2.08
    """
    rng = np.random.default_rng(rng)
    if len(loc) > MOST_CELLS:
        some = rng.choice(len(loc), MOST_CELLS, replace=False)
        loc, scale = loc[some], scale[some]
    draws = loc + scale * rng.standard_normal(loc.shape)
    log_scale = np.log(scale).sum(axis=1)
    own = -np.square((draws - loc) / scale).sum(axis=1) / 2 - log_scale
    mixture = np.empty(len(loc))
    for start in range(0, len(loc), _blocks.MIXED_POSTERIORS):
        chunk = slice(start, start + _blocks.MIXED_POSTERIORS)
        distances = np.square((draws[chunk, None] - loc) / scale).sum(axis=2) / 2
        mixture[chunk] = logsumexp(-distances - log_scale, axis=1) - np.log(len(loc))
    return float(np.mean(own - mixture))


def label_agreement(
    latent: np.ndarray, labels: np.ndarray, n_neighbors: int = NEIGHBOURS
) -> dict[str, float]:
    """Return the share of nearest neighbours that have the same type, for each type.

    Parameters
    ----------
    latent
        Position of each cell, ``(n_cells, n_latent)``.
    labels
        Type of each cell, ``(n_cells,)``.
    n_neighbors
        Number of nearest other cells.

    Returns
    -------
    Mean share over the cells of a type, by type. Types with one cell are left out. If a type has
    fewer cells than ``n_neighbors``, the share is relative to the largest possible share.

    Examples
    --------
    >>> label_agreement(np.array([[0.0], [0.1], [5.0], [5.1]]), np.array(list("aabb")))
    {'a': 1.0, 'b': 1.0}
    """
    n_neighbors = min(n_neighbors, len(latent) - 1)
    if n_neighbors < 1:
        return {}
    search = NearestNeighbors(n_neighbors=n_neighbors).fit(latent)
    # without positions as an argument, a cell is not its own neighbour
    same = labels[search.kneighbors(return_distance=False)] == labels[:, None]
    agreement = {}
    for label in np.unique(labels):
        mine = labels == label
        possible = min(n_neighbors, int(mine.sum()) - 1)
        if possible:
            agreement[str(label)] = float(same[mine].sum(axis=1).mean() / possible)
    return agreement
