"""Paths through a latent space: straight lines, and paths through populated regions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse
from scipy.optimize import minimize
from scipy.sparse.csgraph import dijkstra
from sklearn.neighbors import kneighbors_graph

if TYPE_CHECKING:
    from betavi.diagnostics.density import LatentDensity

N_NEIGHBOURS = 15
N_POINTS = 33  # points of a path while it is optimised
MOST_ROUNDS = 200
ACTIVE = 0.1  # least share of variance between cells in a dimension in which cells differ
MOST_DEPTH = 10.0  # nats per dimension below the highest density, at which the cost is capped


def resampled(points: np.ndarray, n_steps: int) -> np.ndarray:
    """Return ``n_steps`` evenly spaced points along a polygon, including its ends."""
    lengths = np.r_[0.0, np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))]
    at = np.linspace(0.0, lengths[-1], n_steps)
    return np.column_stack([np.interp(at, lengths, column) for column in points.T])


def straight(start: np.ndarray, end: np.ndarray, n_steps: int) -> np.ndarray:
    """Return evenly spaced points from one position to another.

    Parameters
    ----------
    start, end
        First and last position, ``(n_latent,)``.
    n_steps
        Number of points, including both ends.

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

    The shortest path in a graph of cells is optimised in the latent space. A unit of length costs
    :math:`(q(z) / \max q)^{-1/d}`, from 1 to :math:`e^{10}`. The maximum is over cells, and
    :math:`d` is the number of dimensions in which cells differ. The cost is thus proportional to
    the distance between neighbouring cells.

    Parameters
    ----------
    start, end
        First and last position, ``(n_latent,)``.
    n_steps
        Number of points to return, including both ends.
    density
        The aggregate posterior.
    nodes
        Positions of cells, ``(n_cells, n_latent)``.

    Returns
    -------
    Evenly spaced positions, ``(n_steps, n_latent)``, along a path of 33 points. The path never
    costs more than the straight line.

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
    # the optimum is local, and the straight line may be the better start
    optimised = [_optimised(cost, points) for points in (found, line)]
    best = min((line, *optimised), key=cost.of_path)
    return resampled(best, n_steps)


class _Cost:
    """Cost of a unit of length at a position."""

    def __init__(self, density: LatentDensity, nodes: np.ndarray) -> None:
        self.density = density
        self.densest = float(density.log_prob(nodes).max())
        # the density is the same everywhere along a dimension in which cells do not differ
        is_active = nodes.var(axis=0) > ACTIVE * density.variance
        self.n_active = max(1, int(is_active.sum()))

    def value(self, positions: np.ndarray) -> np.ndarray:
        """Return the cost of a unit of length, ``(n,)``."""
        return self._of_log_prob(self.density.log_prob(positions))[0]

    def _of_log_prob(self, log_prob: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the cost, ``(n,)``, and its derivative by the log density, ``(n,)``."""
        depth = (self.densest - log_prob) / self.n_active
        cost = np.exp(np.clip(depth, 0.0, MOST_DEPTH))
        return cost, -cost * ((depth > 0) & (depth < MOST_DEPTH)) / self.n_active

    def __call__(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the cost of a unit of length, ``(n,)``, and its gradient, ``(n, n_latent)``."""
        log_prob, slope = self.density.log_prob_and_slope(positions)
        cost, derivative = self._of_log_prob(log_prob)
        return cost, derivative[:, None] * slope

    def of_edges(self, places: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
        """Return the cost of edges between places, ``(n,)``, integrated by Simpson's rule."""
        length = np.linalg.norm(places[ends] - places[starts], axis=1)
        at_place, at_middle = self.value(places), self.value((places[starts] + places[ends]) / 2)
        return length * (at_place[starts] + 4 * at_middle + at_place[ends]) / 6

    def of_path(self, points: np.ndarray) -> float:
        """Return the cost of a polygon."""
        number = np.arange(len(points))
        return float(self.of_edges(points, number[:-1], number[1:]).sum())

    def energy(self, points: np.ndarray) -> tuple[float, np.ndarray]:
        """Return the sum of squared steps times squared cost, and its gradient at inner points."""
        steps = np.diff(points, axis=0)
        squares = np.square(steps).sum(axis=1)
        at_middle, slope = self((points[:-1] + points[1:]) / 2)
        by_step = 2 * np.square(at_middle)[:, None] * steps
        by_middle = (at_middle * squares)[:, None] * slope
        gradient = by_middle[:-1] + by_middle[1:] + by_step[:-1] - by_step[1:]
        return float(np.square(at_middle) @ squares), gradient.ravel()


def _through_cells(
    cost: _Cost, start: np.ndarray, end: np.ndarray, nodes: np.ndarray
) -> np.ndarray:
    """Return the cheapest path between neighbouring cells, ``(n_points, n_latent)``."""
    places = np.vstack([start, end, nodes])
    n_neighbours = min(N_NEIGHBOURS, len(places) - 1)
    graph = sparse.coo_array(kneighbors_graph(places, n_neighbours))
    weights = np.maximum(cost.of_edges(places, graph.row, graph.col), 1e-12)
    edges = sparse.csr_array((weights, (graph.row, graph.col)), shape=graph.shape)
    costs, before = dijkstra(edges, directed=False, indices=0, return_predecessors=True)
    if not np.isfinite(costs[1]):
        # the ends are in different components of the graph
        return places[:2]
    route = [1]
    while route[-1] != 0:
        route.append(before[route[-1]])
    return places[route[::-1]]


def _optimised(cost: _Cost, points: np.ndarray) -> np.ndarray:
    """Return a path with the same ends and a lower energy."""

    def path(inner: np.ndarray) -> np.ndarray:
        return np.vstack([points[:1], inner.reshape(-1, points.shape[1]), points[-1:]])

    start, options = points[1:-1].ravel(), {"maxiter": MOST_ROUNDS}
    found = minimize(
        lambda inner: cost.energy(path(inner)), start, jac=True, method="L-BFGS-B", options=options
    )
    return path(found.x)
