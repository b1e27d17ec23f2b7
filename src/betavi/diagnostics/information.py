"""Information about cells in a latent space, from the posteriors alone. All in nats."""

from __future__ import annotations

import numpy as np
from scipy.special import logsumexp
from sklearn.neighbors import NearestNeighbors

from betavi import _blocks

ACTIVE = 0.1
"""Nats of information from which on a dimension counts as active."""

MOST_CELLS = 2000  # in a mixture, as time grows with the square of their number
NEIGHBOURS = 15


def dimension_information(loc: np.ndarray, scale: np.ndarray) -> np.ndarray:
    r"""Return the information of each dimension about a cell, for normal positions over cells.

    :math:`\frac12 (\log \mathrm{Var}\,z_j - E \log \sigma_j^2)`, the mean divergence of the
    posteriors from the normal distribution with their common mean and variance. It depends on
    neither the prior nor the units of z.

    Parameters
    ----------
    loc, scale
        Means and standard deviations of the posteriors, ``(n_cells, n_latent)``.

    Returns
    -------
    Nats, ``(n_latent,)``; at least 0.

    Examples
    --------
    >>> dimension_information(np.array([[-1.0, 0.0], [1.0, 0.0]]), np.ones((2, 2))).round(3)
    array([0.347, 0.   ])
    """
    total = loc.var(axis=0) + np.square(scale).mean(axis=0)
    return (np.log(total) - np.log(np.square(scale)).mean(axis=0)) / 2


def active_dimensions(loc: np.ndarray, scale: np.ndarray, threshold: float = ACTIVE) -> int:
    """Return the number of dimensions with more than ``threshold`` nats of information.

    Burda et al. (2016, Importance weighted autoencoders) count those whose mean varies by more than
    0.01 over cells. That is a threshold of about 0.005 nats, at which noise passes for signal.

    Parameters
    ----------
    loc, scale, threshold
        See :func:`dimension_information`, and nats.

    Returns
    -------
    Their number, at most ``n_latent``.

    Examples
    --------
    >>> active_dimensions(np.array([[-1.0, 0.0], [1.0, 0.0]]), np.ones((2, 2)))
    1
    """
    return int((dimension_information(loc, scale) > threshold).sum())


def mutual_information(
    loc: np.ndarray, scale: np.ndarray, rng: np.random.Generator | int = 0
) -> float:
    r"""Estimate the information between a cell and its latent position.

    :math:`E \log q(z | x) - \log q(z)` at a draw of each posterior, where :math:`q(z)` is the mean
    of the posteriors of at most 2,000 random cells. It cannot exceed the log of their number (7.6
    nats for 2,000, 5.7 for 300). A value close to that is only a lower bound.

    Parameters
    ----------
    loc, scale, rng
        See :func:`dimension_information`, and generator or seed of the draws.

    Returns
    -------
    Nats.

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
    """Return the share of a cell's neighbours that are of its type, by type.

    Parameters
    ----------
    latent, labels
        Position, ``(n_cells, n_latent)``, and type, ``(n_cells,)``, of each cell.
    n_neighbors
        Number of nearest other cells.

    Returns
    -------
    For types of two cells or more, the mean share, relative to the largest that is possible if
    there are fewer cells of the type than neighbours.

    Examples
    --------
    >>> label_agreement(np.array([[0.0], [0.1], [5.0], [5.1]]), np.array(list("aabb")))
    {'a': 1.0, 'b': 1.0}
    """
    n_neighbors = min(n_neighbors, len(latent) - 1)
    if n_neighbors < 1:
        return {}
    search = NearestNeighbors(n_neighbors=n_neighbors).fit(latent)
    # without an argument, a cell is not its own neighbour
    same = labels[search.kneighbors(return_distance=False)] == labels[:, None]
    agreement = {}
    for label in np.unique(labels):
        mine = labels == label
        possible = min(n_neighbors, int(mine.sum()) - 1)
        if possible:
            agreement[str(label)] = float(same[mine].sum(axis=1).mean() / possible)
    return agreement
