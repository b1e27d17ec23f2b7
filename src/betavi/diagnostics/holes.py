"""Empty regions between cells."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from sklearn.neighbors import NearestNeighbors

if TYPE_CHECKING:
    from betavi.diagnostics.density import LatentDensity

N_PAIRS, STEPS_PER_PAIR = 4000, 15
MOST_CANDIDATES = 1500
N_DIRECTIONS = 500
NARROWER = 0.8  # least width between two points of one hole, in radii of the smaller
CHECKS_PER_LINE = 5
ENCLOSED = 0.05  # least share of the cells beyond a hole, in any direction
MOST = 0.9  # share of cells whose nearest neighbour is nearer than a hole's radius
FEWEST_LINES = 0.005  # least share of the lines between cells that lead through a hole


class Holes(NamedTuple):
    """Holes, the largest first.

    Parameters
    ----------
    centres, log_density, radius
        Position, ``(n_holes, n_latent)``, farthest from any cell, log density there, nats, and
        distance to the nearest cell.
    depth
        Least share of the cells beyond it, over directions.
    share
        Share of the straight lines between two cells that lead through it.
    ends
        The cells between which it was found, ``(n_holes, 2)``.

    Examples
    --------
    >>> Holes(*np.ones((6, 1))).radius  # see find_holes
    array([1.])
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

    Candidates are the thinnest points of straight lines between cells. A point is in a hole if it
    is thinner than nearly all cells, farther from any cell than nine in ten are from their nearest,
    and enclosed by cells in every direction. Two points are in one hole if nothing narrows the way
    between them. Depth is that of Tukey (1975), Mathematics and the picturing of data.

    Parameters
    ----------
    density, positions
        The aggregate posterior, and positions of cells, ``(n_cells, n_latent)``.
    thin_below, seed
        Log density, in nats, that nearly no cell is below, and seed of the lines and directions.

    Returns
    -------
    Holes, the largest first; of length 0 if there are none.

    Examples
    --------
    >>> from betavi.diagnostics import LatentDensity
    >>> turns = np.linspace(0, 2 * np.pi, 600)
    >>> ring = np.column_stack([np.cos(turns), np.sin(turns)])
    >>> narrow = np.tile(0.05 * np.eye(2), (10, 1, 1))
    >>> density = LatentDensity(np.full(10, 0.1), ring[::60], narrow, held_out=0.0)
    >>> find_holes(density, ring, thin_below=-4.0).radius.round(1)
    array([1.])
    """
    rng = np.random.default_rng(seed)
    pairs = rng.integers(len(positions), size=(N_PAIRS, 2))
    points, thinness = _thinnest(density, positions, pairs)
    cells = _Cells(positions)
    radius = cells.radius(points)
    empty = np.flatnonzero((thinness < thin_below) & (radius > cells.usual))
    depth = np.zeros(len(points))
    depth[empty] = _depth(points[empty], positions, rng)
    inside = np.flatnonzero(depth >= ENCLOSED)
    shown = inside[:MOST_CANDIDATES]
    group = _groups(cells, points[shown], radius[shown])
    found = []
    for number in np.unique(group):
        members = shown[group == number]
        share = len(members) / len(shown) * len(inside) / N_PAIRS
        if share >= FEWEST_LINES:
            found.append((share, members[radius[members].argmax()]))
    found.sort(reverse=True)
    chosen = np.array([centre for _, centre in found], dtype=int)
    shares = np.array([share for share, _ in found])
    return Holes(
        points[chosen], thinness[chosen], depth[chosen], radius[chosen], shares, pairs[chosen]
    )


class _Cells:
    """Distances of points from cells."""

    def __init__(self, positions: np.ndarray) -> None:
        self.near = NearestNeighbors(n_neighbors=2).fit(positions)
        self.usual = float(np.quantile(self.near.kneighbors(positions)[0][:, 1], MOST))

    def radius(self, points: np.ndarray) -> np.ndarray:
        """Return the distance of points ``(..., n_latent)`` to the nearest cell."""
        if not points.size:
            return np.zeros(points.shape[:-1])
        flat = points.reshape(-1, points.shape[-1])
        distance = self.near.kneighbors(flat, n_neighbors=1)[0]
        return distance.reshape(points.shape[:-1])


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

    In many dimensions random directions rarely find the empty side. Those from cell to cell, and
    from the centre to the point, are therefore tried too.
    """
    centred = positions - positions.mean(axis=0)
    pairs = rng.integers(len(positions), size=(N_DIRECTIONS, 2))
    directions = np.vstack(
        [
            rng.standard_normal((N_DIRECTIONS, positions.shape[1])),
            centred[pairs[:, 0]] - centred[pairs[:, 1]],
            points - positions.mean(axis=0),
        ]
    )
    least = np.ones(len(points))
    # a pair in the same place has no direction
    for direction in directions[directions.any(axis=1)]:
        cells = np.sort(positions @ direction)
        share = np.searchsorted(cells, points @ direction) / len(cells)
        np.minimum(least, np.minimum(share, 1 - share), out=least)
    return least


def _groups(cells: _Cells, points: np.ndarray, radius: np.ndarray) -> np.ndarray:
    """Return the number of the hole of each point.

    A point joins the hole of an emptier one if the way there is at most a fifth narrower than the
    point's own radius; else it is the centre of another. In many dimensions all holes are connected
    around the cells, and only the narrow places between them separate them.
    """
    group = np.full(len(points), -1)
    centres: list[int] = []
    shares = np.linspace(0, 1, CHECKS_PER_LINE + 2)[1:-1, None, None]
    for point in np.argsort(-radius):
        if centres:
            lines = (1 - shares) * points[point] + shares * points[centres]
            narrowest = cells.radius(lines).min(axis=0)
            best = int(narrowest.argmax())
            if narrowest[best] >= NARROWER * radius[point]:
                group[point] = best
                continue
        group[point] = len(centres)
        centres.append(int(point))
    return group
