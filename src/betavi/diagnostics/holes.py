"""Empty regions between cells."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.spatial.distance import cdist
from sklearn.neighbors import NearestNeighbors

N_STARTS = 3000  # midpoints of pairs of cells, from which empty balls grow; not tuned
NEAR_SHARE = 0.1  # share of the cells that are near a cell, for 50 % of the pairs; not tuned
N_STEPS = 20
SMALLEST_STEP = 0.02  # in distances to the nearest cells
SHELL = 4.0  # volume of the ball whose cells surround a hole, in volumes of the hole; not tuned
N_DIRECTIONS = 300
ENCLOSED = 0.05  # least share of the surrounding cells on one side of a hole; not tuned
N_LINES = 4000


class Holes(NamedTuple):
    """Holes, the largest first.

    Parameters
    ----------
    centres
        Centre of each empty ball, ``(n_holes, n_latent)``.
    radius
        Distance from the centre to the nearest cell, ``(n_holes,)``.
    evidence
        Negative log probability that the ball is empty by chance, in nats, ``(n_holes,)``.
    depth
        Smallest share of the surrounding cells on one side of the centre, over all directions,
        ``(n_holes,)``. A depth near 0 means that cells are on one side only.
    share
        Share of the straight lines between two random cells that cross the ball, ``(n_holes,)``.
    ends
        Two cells whose line passes close to the centre, ``(n_holes, 2)``.

    Examples
    --------
    >>> Holes(*np.ones((6, 1))).radius  # see find_holes
    array([1.])
    """

    centres: np.ndarray
    radius: np.ndarray
    evidence: np.ndarray
    depth: np.ndarray
    share: np.ndarray
    ends: np.ndarray


def find_holes(positions: np.ndarray, level: float = 0.01, seed: int = 0) -> Holes:
    """Find empty balls that are surrounded by cells.

    Balls start at midpoints of pairs of cells and move away from the nearest cells while they grow.
    A ball is a hole if two conditions hold. Cells surround the ball on all sides, and the ball is
    too large to be empty by chance. For the second condition, take the larger ball with the same
    centre and four times the volume. Under an even density, all n cells of the larger ball are
    outside the small ball with probability ``0.75 ** n``. This probability must be below ``level``
    divided by the number of pairs of cells.

    The method finds 88 % of the balls that were removed from latent spaces of real cells in two
    dimensions (24 % by chance), and 67 % in three (26 %). In five dimensions it is hardly better than
    chance, and in ten it reports nothing (``python -m benchmarks.holes``).

    Parameters
    ----------
    positions
        Positions of cells, ``(n_cells, n_latent)``.
    level
        Probability that the method reports a hole although the density is even.
    seed
        Seed of the pairs of cells and of the directions.

    Returns
    -------
    Holes, the largest first. All arrays have length 0 if there are no holes.

    Examples
    --------
    >>> angles = np.random.default_rng(0).uniform(0, 2 * np.pi, 2000)
    >>> ring = np.column_stack([np.cos(angles), np.sin(angles)])
    >>> ring += np.random.default_rng(1).normal(scale=0.1, size=ring.shape)
    >>> holes = find_holes(ring)
    >>> len(holes.centres), bool(np.linalg.norm(holes.centres[0]) < 0.3)
    (1, True)
    """
    rng = np.random.default_rng(seed)
    n_cells, n_latent = positions.shape
    centres, radius = _grown(_midpoints(positions, rng), positions)
    reach = radius * SHELL ** (1 / n_latent)
    evidence = -np.log1p(-1 / SHELL) * _counts(centres, reach, positions)
    # cells at one position are no hole
    unlikely = np.flatnonzero((evidence > 2 * np.log(n_cells) - np.log(level)) & (radius > 0))
    depth = np.zeros(len(centres))
    chosen: list[int] = []
    # a ball that cells do not surround must not hide a smaller one beside it that they do
    for ball in unlikely[np.argsort(-evidence[unlikely], kind="stable")]:
        if not _overlaps(ball, chosen, centres, radius):
            offsets = positions - centres[ball]
            is_near = np.linalg.norm(offsets, axis=1) <= reach[ball]
            depth[ball] = _depth(offsets[is_near], rng)
            if depth[ball] >= ENCLOSED:
                chosen.append(ball)
    found = np.array(chosen, dtype=int)
    share, ends = _crossing(centres[found], radius[found], positions, rng)
    largest = np.lexsort((-radius[found], -share))
    order = found[largest]
    of_balls = centres[order], radius[order], evidence[order], depth[order]
    return Holes(*of_balls, share[largest], ends[largest])


def _midpoints(positions: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return midpoints of pairs of cells, ``(n, n_latent)``.

    In 50 % of the pairs, the cells are near.
    """
    starts, ends = rng.integers(len(positions), size=(2, N_STARTS))
    n_near, half = max(2, int(NEAR_SHARE * len(positions))), N_STARTS // 2
    near = NearestNeighbors(n_neighbors=min(n_near, len(positions))).fit(positions)
    found = near.kneighbors(positions[starts[:half]], return_distance=False)
    ends[:half] = found[np.arange(half), rng.integers(found.shape[1], size=half)]
    midpoints: np.ndarray = (positions[starts] + positions[ends]) / 2
    return midpoints


def _grown(points: np.ndarray, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Move points away from the nearest cells. Return the points and their distances to a cell."""
    points, step = points.copy(), np.full(len(points), 0.5)
    n_near = min(2 * points.shape[1], len(positions))
    # trees are slow in many dimensions
    algorithm = "brute" if points.shape[1] > 5 else "auto"
    cells = NearestNeighbors(n_neighbors=n_near, algorithm=algorithm).fit(positions)
    distance, near = cells.kneighbors(points)
    radius, moving = distance[:, 0], np.arange(len(points))
    for _ in range(N_STEPS):
        away = points[moving] - positions[near[moving]].mean(axis=1)
        moved = points[moving] + step[moving, None] * away
        distance, found = cells.kneighbors(moved)
        is_better = distance[:, 0] > radius[moving]
        better = moving[is_better]
        points[better], radius[better] = moved[is_better], distance[is_better, 0]
        near[better] = found[is_better]
        step[moving[~is_better]] /= 2
        moving = moving[step[moving] > SMALLEST_STEP]
        if not len(moving):
            break
    return points, radius


def _counts(centres: np.ndarray, reach: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Return the number of cells within reach of each centre, some centres at a time."""
    counts = np.zeros(len(centres), dtype=int)
    for some in np.array_split(np.arange(len(centres)), 30):
        counts[some] = (cdist(centres[some], positions) <= reach[some, None]).sum(axis=1)
    return counts


def _overlaps(ball: int, others: list[int], centres: np.ndarray, radius: np.ndarray) -> bool:
    """Return True if a ball contains the centre of another ball, or the reverse."""
    distance = np.linalg.norm(centres[others] - centres[ball], axis=1)
    return bool((distance <= np.maximum(radius[others], radius[ball])).any())


def _depth(offsets: np.ndarray, rng: np.random.Generator) -> float:
    """Return the smallest share of cells on one side of a point, over directions."""
    behind = float((offsets @ offsets.mean(axis=0) < 0).mean())
    if behind < ENCLOSED:  # most balls that are not surrounded end here, which saves time
        return behind
    directions = np.vstack(
        [
            rng.standard_normal((N_DIRECTIONS, offsets.shape[1])),
            offsets[rng.integers(len(offsets), size=N_DIRECTIONS)],
            offsets.mean(axis=0),
        ]
    )
    share = (offsets @ directions.T > 0).mean(axis=0)
    return float(min(share.min(), 1 - share.max()))


def _crossing(
    centres: np.ndarray, radius: np.ndarray, positions: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return the share of lines between cells that cross each ball, and the nearest line."""
    pairs = rng.integers(len(positions), size=(N_LINES, 2))
    starts, lines = positions[pairs[:, 0]], positions[pairs[:, 1]] - positions[pairs[:, 0]]
    length = np.square(lines).sum(axis=1).clip(min=np.finfo(float).tiny)
    shares, ends = np.zeros(len(centres)), np.zeros((len(centres), 2), dtype=int)
    for hole, centre in enumerate(centres):
        along = (((centre - starts) * lines).sum(axis=1) / length).clip(0, 1)
        distance = np.linalg.norm(starts + along[:, None] * lines - centre, axis=1)
        shares[hole], ends[hole] = (distance < radius[hole]).mean(), pairs[distance.argmin()]
    return shares, ends
