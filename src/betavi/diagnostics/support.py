"""Calibration of outlier scores and p-values on held-out cells of similar depth."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

N_KNOTS = 24  # depths of the estimates, with linear interpolation between them
SHARE_PER_KNOT, FEWEST_PER_KNOT = 0.15, 60  # cells of similar depth at each knot
N_FOLDS = 5
SMALLEST_SPREAD = 1e-9


class CellScores(NamedTuple):
    """Outlier scores of cells, ``(n_cells,)``.

    Cells may be scored several times, each time with a smaller share of their molecules. The arrays
    are then ``(n_copies, n_cells)``.

    Parameters
    ----------
    log_density
        Log density of the aggregate posterior at the position of the cell.
    log_depth
        Log of the total count of the cell.
    reconstruction_excess
        Reconstruction loss of the cell minus the loss of counts drawn from its decoded position,
        nats.

    Examples
    --------
    >>> scores = CellScores(np.array([-5.0, -9.0]), np.array([0.1, 4.0]), np.array([7.0, 7.0]))
    >>> scores.of(np.array([1])).reconstruction_excess
    array([4.])
    """

    log_density: np.ndarray
    reconstruction_excess: np.ndarray
    log_depth: np.ndarray

    def of(self, cells: np.ndarray) -> CellScores:
        """Return the scores of some cells."""
        return CellScores(*(part[..., cells] for part in self))

    @classmethod
    def joined(cls, parts: list[CellScores]) -> CellScores:
        """Concatenate cells along the last axis of each part."""
        return cls(*(np.concatenate(columns, axis=-1) for columns in zip(*parts, strict=True)))


class _ScoreByDepth:
    """Median and spread of a score as functions of depth."""

    def __init__(self, score: np.ndarray, depth: np.ndarray) -> None:
        self.ends = depth.min(), depth.max()
        # without its trend, a score hardly changes with depth within a window
        self.trend = np.polynomial.Polynomial.fit(depth, score, min(2, len(np.unique(depth)) - 1))
        rest = score - self.trend(depth)
        self.knots = np.quantile(depth, (np.arange(N_KNOTS) + 0.5) / N_KNOTS)
        n_near = min(len(depth), max(FEWEST_PER_KNOT, int(SHARE_PER_KNOT * len(depth))))
        near = np.argsort(np.abs(depth[:, None] - self.knots), axis=0)[:n_near]
        # quantiles, because a few outlying cells would inflate the standard deviation
        low, self.median, high = np.quantile(rest[near], (0.16, 0.5, 0.84), axis=0)
        self.spread = np.maximum((high - low) / 2, SMALLEST_SPREAD)

    def deviation(self, score: np.ndarray, depth: np.ndarray) -> np.ndarray:
        """Return the deviation from the median score at the same depth, in standard deviations."""
        depth = np.clip(depth, *self.ends)
        median, spread = (np.interp(depth, self.knots, part) for part in (self.median, self.spread))
        return (score - self.trend(depth) - median) / spread


@dataclass(frozen=True, eq=False)
class DensityCalibration:
    """Null distribution of log densities, estimated on held-out cells (Bates et al., 2023).

    Parameters
    ----------
    log_density
        Log density at the posterior means of held-out cells, ``(n_known,)``.

    Examples
    --------
    >>> DensityCalibration(np.arange(9.0)).p_value(np.array([-1.0, 9.0])).tolist()
    [0.1, 1.0]
    """

    log_density: np.ndarray

    def p_value(self, log_density: np.ndarray) -> np.ndarray:
        """Return the share of held-out cells at the same or a lower density, ``(n,)``."""
        known = np.sort(-self.log_density)
        return (1 + _as_large(known, -log_density)) / (1 + len(known))


@dataclass(frozen=True, eq=False)
class SupportCalibration:
    """Null distribution of outlier scores, estimated on held-out cells.

    Scores are standardised at each depth. A shallow cell has few counts, a wide posterior near the
    centre of the latent space, and a small excess loss. Scores of shallow cells also have longer
    tails. A cell is therefore ranked among held-out cells of the same depth: molecules of deeper
    cells are removed at random. Held-out cells are standardised in 5 folds, each by the cells of
    the other folds.

    Parameters
    ----------
    held_out
        Scores of the held-out cells, each array ``(n_copies, n_known)``. The first row has all
        molecules. In each further row, molecules were removed at random.

    References
    ----------
    Vovk et al. (2005), Algorithmic learning in a random world; Vovk (2015), Cross-conformal
    predictors; Bates et al. (2023), Testing for outliers with conformal p-values.

    Examples
    --------
    >>> known = CellScores(*np.random.default_rng(0).normal(size=(3, 1, 500)))
    >>> cells = CellScores(np.array([0.0, -9.0]), np.array([0.0, 9.0]), np.zeros(2))
    >>> (SupportCalibration(known).p_value(cells) < 0.05).tolist()
    [False, True]
    """

    held_out: CellScores

    @property
    def n_known(self) -> int:
        """Number of held-out cells."""
        return self.held_out.log_depth.shape[1]

    @cached_property
    def _fold(self) -> np.ndarray:
        """Fold of each held-out cell, ``(n_known,)``."""
        return np.random.default_rng(0).permutation(self.n_known) % min(N_FOLDS, self.n_known)

    @cached_property
    def _by_depth(self) -> list[tuple[_ScoreByDepth, _ScoreByDepth]]:
        """Both scores by depth, for each fold, estimated on the other folds."""
        found = []
        for part in np.unique(self._fold):
            others = self._fold != part if self.n_known > 1 else self._fold == part
            density, excess, depth = (x.ravel() for x in self.held_out.of(others))
            found.append((_ScoreByDepth(density, depth), _ScoreByDepth(excess, depth)))
        return found

    def outlier_score(self, scores: CellScores) -> np.ndarray:
        """Return the root of the summed squares of the two positive deviations, ``(n_cells,)``."""
        return np.mean([_outlier_score(part, scores) for part in self._by_depth], axis=0)

    @cached_property
    def _known_outlier_scores(self) -> np.ndarray:
        found = np.empty_like(self.held_out.log_depth)
        for part, by_depth in enumerate(self._by_depth):
            mine = self._fold == part
            found[:, mine] = _outlier_score(by_depth, self.held_out.of(mine))
        return found

    def p_value(self, scores: CellScores) -> np.ndarray:
        """Return the share of held-out cells of the same depth that are at least as outlying."""
        outlying, known = self.outlier_score(scores), np.sort(self._known_outlier_scores, axis=1)
        ranks = np.stack([1 + _as_large(copy, outlying) for copy in known]) / (1 + self.n_known)
        depth = np.median(self.held_out.log_depth, axis=1)
        rising = np.argsort(depth)
        at = np.interp(scores.log_depth, depth[rising], np.arange(len(depth)))
        below, above, cells = np.floor(at).astype(int), np.ceil(at).astype(int), np.arange(len(at))
        share = at - below  # p-values are interpolated between two depths of the held-out cells
        p_value: np.ndarray = (1 - share) * ranks[rising[below], cells]
        return p_value + share * ranks[rising[above], cells]

    def is_beyond(self, scores: CellScores) -> np.ndarray:
        """Return True for cells outside 0.5 to 2 times the depths of held-out cells."""
        known, far = self.held_out.log_depth, np.log(2)
        return (scores.log_depth < known.min() - far) | (scores.log_depth > known.max() + far)


def _outlier_score(by_depth: tuple[_ScoreByDepth, _ScoreByDepth], scores: CellScores) -> np.ndarray:
    density, excess = by_depth
    deviations = (
        -density.deviation(scores.log_density, scores.log_depth),
        excess.deviation(scores.reconstruction_excess, scores.log_depth),
    )
    # a smooth positive part, which also ranks cells with two negative deviations
    return np.sqrt(sum(np.square(np.logaddexp(0.0, part)) for part in deviations))


def _as_large(known: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return the number of known values, ascending, that are as large or larger."""
    return len(known) - np.searchsorted(known, values, side="left")
