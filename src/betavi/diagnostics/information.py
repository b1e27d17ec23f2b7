"""How much a latent space says of its cells, from the posteriors alone. All in nats."""

from __future__ import annotations

import numpy as np
from scipy.special import logsumexp
from sklearn.neighbors import NearestNeighbors

from betavi import _blocks

ACTIVE = 0.1
"""Nats of information from which on a dimension counts as active."""

MOST_CELLS = 2000
"""A mixture of more posteriors costs time in the square of their number."""

NEIGHBOURS = 15


def dimension_information(loc: np.ndarray, scale: np.ndarray) -> np.ndarray:
    r"""Return how much each dimension says of a cell, if its values over cells are about normal.

    :math:`\frac12 (\log \mathrm{Var}\,z_j - E \log \sigma_j^2)`, the mean divergence of the
    posteriors from the normal distribution with their common mean and variance. It does not depend
    on the prior, nor on the units of z.

    Parameters
    ----------
    loc, scale
        Means and standard deviations of the posteriors, ``(n_cells, n_latent)``.

    Returns
    -------
    Nats, ``(n_latent,)``; at least 0.

    Examples
    --------
    >>> import numpy as np
    >>> from betavi.diagnostics import dimension_information
    >>> loc = np.array([[-1.0, 0.0], [1.0, 0.0]])
    >>> dimension_information(loc, np.ones((2, 2))).round(3)
    array([0.347, 0.   ])
    """
    total = loc.var(axis=0) + np.square(scale).mean(axis=0)
    information: np.ndarray = (np.log(total) - np.log(np.square(scale)).mean(axis=0)) / 2
    return information


def active_dimensions(loc: np.ndarray, scale: np.ndarray, threshold: float = ACTIVE) -> int:
    """Return how many dimensions say more than ``threshold`` nats of a cell.

    Burda et al. (2016) count those whose mean varies by more than 0.01 over cells, which is the
    same idea at a threshold of about 0.005 nats, where noise passes for signal.

    Parameters
    ----------
    loc, scale
        Means and standard deviations of the posteriors, ``(n_cells, n_latent)``.
    threshold
        Nats.

    Returns
    -------
    Their number, at most ``n_latent``.

    References
    ----------
    Burda et al. (2016), Importance weighted autoencoders.

    Examples
    --------
    >>> import numpy as np
    >>> from betavi.diagnostics import active_dimensions
    >>> active_dimensions(np.array([[-1.0, 0.0], [1.0, 0.0]]), np.ones((2, 2)))
    1
    """
    return int((dimension_information(loc, scale) > threshold).sum())


def mutual_information(
    loc: np.ndarray, scale: np.ndarray, rng: np.random.Generator | int = 0
) -> float:
    r"""Estimate the information between a cell and its latent position.

    :math:`E \log q(z | x) - \log q(z)` at a draw of each posterior, where :math:`q(z)` is the mean
    of the posteriors, of at most 2,000 random cells. It cannot exceed the log of their number (7.6
    nats of 2,000, 5.7 of 300), and close to that it says only that the cells are told apart.

    Parameters
    ----------
    loc, scale
        Means and standard deviations of the posteriors, ``(n_cells, n_latent)``.
    rng
        Generator or seed of the draws.

    Returns
    -------
    Nats.

    References
    ----------
    Hoffman & Johnson (2016), ELBO surgery.

    Examples
    --------
    >>> import numpy as np
    >>> from betavi.diagnostics import mutual_information
    >>> far_apart = 100.0 * np.arange(8)[:, None]
    >>> round(mutual_information(far_apart, np.ones((8, 1))) / float(np.log(8)), 3)
    1.0
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
    """Return how often the neighbours of a cell of each type are of its type.

    Parameters
    ----------
    latent
        Positions, ``(n_cells, n_latent)``.
    labels
        Type of each cell, ``(n_cells,)``.
    n_neighbors
        Number of nearest other cells.

    Returns
    -------
    By type of two cells or more, the mean share of a cell's neighbours that are of its type, or that could be, where
    there are fewer of the type than neighbours.

    Examples
    --------
    >>> import numpy as np
    >>> from betavi.diagnostics import label_agreement
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
