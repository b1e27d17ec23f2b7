"""Regions between cells where there are none."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from sklearn.neighbors import NearestNeighbors

if TYPE_CHECKING:
    from betavi.diagnostics.density import LatentDensity

N_PAIRS, STEPS_PER_PAIR = 4000, 15
MOST_CANDIDATES = 1500
N_DIRECTIONS = 500
N_NEAR = 10
CHECKS_PER_EDGE = 5
ENCLOSED = 0.05
"""Share of the cells that are beyond a hole, in whichever direction one looks."""

MOST = 0.9
"""Share of the cells whose nearest neighbour is nearer than any cell is to a hole."""

FEWEST_LINES = 0.01
"""Share of the lines between cells that lead through a hole, at least."""


class Holes(NamedTuple):
    """Holes, the largest first.

    Parameters
    ----------
    centres
        Position of each, ``(n_holes, n_latent)``: the thinnest that was found in it.
    log_density
        There, in nats.
    depth
        Share of the cells that are beyond it at least, in whichever direction one looks.
    radius
        Distance to the nearest cell.
    share
        Share of the straight lines between two cells that lead through it.
    ends
        The cells between which it was found, ``(n_holes, 2)``.
    """

    centres: np.ndarray
    log_density: np.ndarray
    depth: np.ndarray
    radius: np.ndarray
    share: np.ndarray
    ends: np.ndarray


def find_holes(
    density: LatentDensity, positions: np.ndarray, thin_below: float, seed: int = 0
) -> Holes:
    """Find regions with cells on all sides and none inside.

    On straight lines between cells the thinnest points are looked up. Those thinner than nearly all
    cells, farther from any cell than most cells are from each other, and with cells beyond them in every
    direction, are in a hole; two are in the same one if the line between them stays thin.

    Parameters
    ----------
    density
        Of cells.
    positions
        Of cells, ``(n_cells, n_latent)``.
    thin_below
        Log density, in nats, below which nearly no cell is.
    seed
        Of the lines and directions.

    References
    ----------
    Tukey (1975), Mathematics and the picturing of data, for the depth of a point among others.

    Examples
    --------
    >>> import numpy as np
    >>> from betavi.diagnostics import find_holes, fit_density
    >>> angles = np.random.default_rng(0).uniform(0, 2 * np.pi, 2000)
    >>> ring = np.column_stack([np.cos(angles), np.sin(angles)])
    >>> ring += np.random.default_rng(1).normal(scale=0.1, size=ring.shape)
    >>> density = fit_density(ring)
    >>> holes = find_holes(density, ring, np.quantile(density.log_prob(ring), 0.01))
    >>> len(holes.centres), bool(np.linalg.norm(holes.centres[0]) < 0.3)
    (1, True)
    """
    rng = np.random.default_rng(seed)
    pairs = rng.integers(len(positions), size=(N_PAIRS, 2))
    points, thinness = _thinnest(density, positions, pairs)
    radius, lonely = _radius(points, positions)
    depth = _depth(points, positions, rng)
    is_inside = (thinness < thin_below) & (depth >= ENCLOSED) & (radius > lonely)
    inside = np.flatnonzero(is_inside)
    shown = inside[:MOST_CANDIDATES]
    group = _regions(_Thin(density, thin_below), points[shown], rng)
    found = []
    for number in np.unique(group):
        members = shown[group == number]
        share = len(members) / len(shown) * len(inside) / N_PAIRS
        if share >= FEWEST_LINES:
            found.append((share, members[thinness[members].argmin()]))
    found.sort(reverse=True)
    chosen = np.array([centre for _, centre in found], dtype=int)
    shares = np.array([share for share, _ in found])
    return Holes(
        points[chosen], thinness[chosen], depth[chosen], radius[chosen], shares, pairs[chosen]
    )


def _radius(points: np.ndarray, positions: np.ndarray) -> tuple[np.ndarray, float]:
    """Return how far the nearest cell of each point is, and of most cells at most."""
    near = NearestNeighbors(n_neighbors=2).fit(positions)
    own = near.kneighbors(positions)[0][:, 1]
    return near.kneighbors(points, n_neighbors=1)[0].ravel(), float(np.quantile(own, MOST))


def _thinnest(
    density: LatentDensity, positions: np.ndarray, pairs: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the thinnest point between the cells of each pair, and the log density there."""
    starts, ends = positions[pairs[:, 0]], positions[pairs[:, 1]]
    shares = np.linspace(0, 1, STEPS_PER_PAIR + 2)[1:-1, None, None]
    lines = (1 - shares) * starts + shares * ends
    logs = density.log_prob(lines.reshape(-1, lines.shape[-1])).reshape(lines.shape[:2])
    lowest = logs.argmin(axis=0), np.arange(len(pairs))
    return lines[lowest], logs[lowest]


def _depth(points: np.ndarray, positions: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the least share of the cells on one side of each point, over many directions.

    Directions from cell to cell, beside those of the axes of the cloud: of random ones, in many
    dimensions, hardly any is that in which there are no cells.
    """
    white = positions - positions.mean(axis=0)
    pairs = rng.integers(len(positions), size=(N_DIRECTIONS, 2))
    directions = np.vstack(
        [
            rng.standard_normal((N_DIRECTIONS, positions.shape[1])),
            white[pairs[:, 0]] - white[pairs[:, 1]],
            points - positions.mean(axis=0),
        ]
    )[: 2 * N_DIRECTIONS + MOST_CANDIDATES]
    least = np.ones(len(points))
    for direction in directions:
        cells = np.sort(positions @ direction)
        share = np.searchsorted(cells, points @ direction) / len(cells)
        np.minimum(least, np.minimum(share, 1 - share), out=least)
    return least


class _Thin:
    """Where the density is below a level."""

    def __init__(self, density: LatentDensity, level: float) -> None:
        self.density, self.level = density, level

    def between(self, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
        """Return whether the line between two points stays there, ``(n,)``."""
        shares = np.linspace(0, 1, CHECKS_PER_EDGE + 2)[1:-1, None, None]
        lines = (1 - shares) * starts + shares * ends
        logs = self.density.log_prob(lines.reshape(-1, lines.shape[-1]))
        stays: np.ndarray = (logs.reshape(lines.shape[:2]) < self.level).all(axis=0)
        return stays


def _regions(thin: _Thin, points: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the number of the region of each point."""
    if len(points) < 2:
        return np.zeros(len(points), dtype=int)
    n_near = min(N_NEAR, len(points) - 1)
    near = NearestNeighbors(n_neighbors=n_near).fit(points).kneighbors(return_distance=False)
    # neighbours, and others anywhere: parts of a region may be far from each other
    rows = np.repeat(np.arange(len(points)), 2 * n_near)
    columns = np.hstack([near, rng.integers(len(points), size=near.shape)]).ravel()
    stays = thin.between(points[rows], points[columns])
    graph = coo_array((stays[stays], (rows[stays], columns[stays])), shape=(len(points),) * 2)
    labels: np.ndarray = connected_components(graph, directed=False)[1]
    return labels
