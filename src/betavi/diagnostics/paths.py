"""Paths through a latent space: straight ones, and ones through populated regions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse
from scipy.optimize import minimize
from scipy.sparse.csgraph import dijkstra
from sklearn.neighbors import kneighbors_graph

if TYPE_CHECKING:
    from collections.abc import Callable

    from betavi.diagnostics.density import LatentDensity

N_NEIGHBOURS = 15
N_POINTS = 33  # points of a path during its refinement
MOST_ROUNDS = 200
ACTIVE = 0.1  # least share of a dimension's variance that is between cells, if they differ in it
THINNEST = 10.0  # nats per dimension below the densest, at which the cost is capped


def resampled(points: np.ndarray, n_steps: int) -> np.ndarray:
    """Return ``n_steps`` points evenly spaced along a polygon, its ends included."""
    lengths = np.r_[0.0, np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))]
    at = np.linspace(0.0, lengths[-1], n_steps)
    return np.column_stack([np.interp(at, lengths, column) for column in points.T])


def straight(start: np.ndarray, end: np.ndarray, n_steps: int) -> np.ndarray:
    """Return evenly spaced points from one position to another.

    Parameters
    ----------
    start, end, n_steps
        Positions, ``(n_latent,)``, and number of points, both ends included.

    Returns
    -------
    Positions, ``(n_steps, n_latent)``.

    Examples
    --------
    >>> straight(np.zeros(2), np.ones(2), 3).tolist()
    [[0.0, 0.0], [0.5, 0.5], [1.0, 1.0]]
    """
    shares = np.linspace(0.0, 1.0, n_steps)[:, None]
    return (1 - shares) * start + shares * end


def along_density(
    start: np.ndarray, end: np.ndarray, n_steps: int, density: LatentDensity, nodes: np.ndarray
) -> np.ndarray:
    r"""Return a path through populated regions.

    The shortest path in a graph of cells, relaxed in the latent space, under a cost per length of
    :math:`(q(z) / \max q)^{-1/d}`, in the ``d`` dimensions that cells differ in: where cells are
    half as far apart, a length costs half. The largest ``q`` is that at any cell. The cost is
    between 1 and :math:`e^{10}`.

    Parameters
    ----------
    start, end, n_steps
        Positions, ``(n_latent,)``, and number of evenly spaced points to return.
    density, nodes
        The aggregate posterior, and positions of cells, ``(n_cells, n_latent)``.

    Returns
    -------
    ``(n_steps, n_latent)``, of a path of 33 points that costs no more than the straight line.

    References
    ----------
    Bijral, Ratliff & Srebro (2011), Semi-supervised learning with density based distances.

    Examples
    --------
    >>> from betavi.diagnostics import fit_density
    >>> angles = np.linspace(0, np.pi, 300)
    >>> arch = np.column_stack([np.cos(angles), np.sin(angles)])
    >>> path = along_density(arch[-1], arch[0], 9, fit_density(arch), arch)
    >>> bool(np.linalg.norm(path, axis=1).min() > 0.7)  # around the hole
    True
    """
    cost = _Cost(density, nodes)
    line = straight(start, end, N_POINTS)
    found = resampled(_through_cells(cost, start, end, nodes), N_POINTS)
    # beside the path through cells, the straight line may be the better start
    refined = [_relaxed(cost, points) for points in (found, line)]
    best = min((line, *refined), key=cost.of_path)
    return resampled(best, n_steps)


class _Cost:
    """Cost of a length by position."""

    def __init__(self, density: LatentDensity, nodes: np.ndarray) -> None:
        self.density = density
        self.densest = float(density.log_prob(nodes).max())
        # dimensions that cells do not differ in are as thin everywhere
        is_active = nodes.var(axis=0) > ACTIVE * density.variance
        self.n_active = max(1, int(is_active.sum()))

    def __call__(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the cost of a unit of length, ``(n,)``, and its gradient, ``(n, n_latent)``."""
        depth = (self.densest - self.density.log_prob(positions)) / self.n_active
        cost = np.exp(np.clip(depth, 0.0, THINNEST))
        moves = (depth > 0) & (depth < THINNEST)
        gradient = -(cost * moves / self.n_active)[:, None] * self.density.slope(positions)
        return cost, gradient

    def of_edges(self, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
        """Return the cost of straight edges, ``(n,)``, by Simpson's rule."""
        length = np.linalg.norm(ends - starts, axis=1)
        first, middle, last = (self(part)[0] for part in (starts, (starts + ends) / 2, ends))
        return length * (first + 4 * middle + last) / 6

    def of_path(self, points: np.ndarray) -> float:
        """Return the cost of a polygon."""
        return float(self.of_edges(points[:-1], points[1:]).sum())


def _through_cells(
    cost: _Cost, start: np.ndarray, end: np.ndarray, nodes: np.ndarray
) -> np.ndarray:
    """Return the cheapest way from cell to neighbouring cell, ``(n_points, n_latent)``."""
    places = np.vstack([start, end, nodes])
    n_neighbours = min(N_NEIGHBOURS, len(places) - 1)
    graph = sparse.coo_array(kneighbors_graph(places, n_neighbours))
    weights = np.maximum(cost.of_edges(places[graph.row], places[graph.col]), 1e-12)
    edges = sparse.csr_array((weights, (graph.row, graph.col)), shape=graph.shape)
    costs, before = dijkstra(edges, directed=False, indices=0, return_predecessors=True)
    if not np.isfinite(costs[1]):
        # between islands there is no way from cell to cell
        return places[:2]
    route = [1]
    while route[-1] != 0:
        route.append(before[route[-1]])
    return places[route[::-1]]


def _relaxed(cost: _Cost, points: np.ndarray) -> np.ndarray:
    """Return a path of less energy, with the same ends."""
    ends, shape = (points[:1], points[-1:]), points[1:-1].shape
    energy = _energy_between(cost, *ends)
    found = minimize(
        lambda flat: energy(flat.reshape(shape)),
        points[1:-1].ravel(),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": MOST_ROUNDS},
    )
    return np.vstack([ends[0], found.x.reshape(shape), ends[1]])


def _energy_between(
    cost: _Cost, start: np.ndarray, end: np.ndarray
) -> Callable[[np.ndarray], tuple[float, np.ndarray]]:
    """Return the energy of a path, squared steps times the squared cost, and its gradient."""

    def energy(inner: np.ndarray) -> tuple[float, np.ndarray]:
        points = np.vstack([start, inner, end])
        steps = np.diff(points, axis=0)
        squares = np.square(steps).sum(axis=1)
        price, slope = cost((points[:-1] + points[1:]) / 2)
        by_step = 2 * np.square(price)[:, None] * steps
        by_middle = (price * squares)[:, None] * slope
        gradient = by_middle[:-1] + by_middle[1:] + by_step[:-1] - by_step[1:]
        return float(np.square(price) @ squares), gradient.ravel()

    return energy
