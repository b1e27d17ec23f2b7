"""Calibration of outlier scores on held-out cells of similar depth, for p-values."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

N_KNOTS = 24  # depths of the estimates; interpolated in between
SHARE_PER_KNOT, FEWEST_PER_KNOT = 0.15, 60  # cells of similar depth at each knot
N_FOLDS = 5  # folds of the known cells
SMALLEST_SPREAD = 1e-9


class CellScores(NamedTuple):
    """Outlier scores of cells, each ``(n_cells,)``, or ``(n_copies, n_cells)`` with copies of them.

    Parameters
    ----------
    log_density, log_depth
        Logs of the density of the aggregate posterior at the cell's position and of its total.
    reconstruction_excess
        Reconstruction loss beyond that of counts drawn from the decoded position, nats.

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


class _Usual:
    """Median and spread of a score by depth."""

    def __init__(self, score: np.ndarray, depth: np.ndarray) -> None:
        self.ends = depth.min(), depth.max()
        # what is left of the trend within a window does not depend on where the window ends
        self.trend = np.polynomial.Polynomial.fit(depth, score, min(2, len(np.unique(depth)) - 1))
        rest = score - self.trend(depth)
        self.knots = np.quantile(depth, (np.arange(N_KNOTS) + 0.5) / N_KNOTS)
        n_near = min(len(depth), max(FEWEST_PER_KNOT, int(SHARE_PER_KNOT * len(depth))))
        near = np.argsort(np.abs(depth[:, None] - self.knots), axis=0)[:n_near]
        # no standard deviation, which a few outlying known cells would widen
        low, self.median, high = np.quantile(rest[near], (0.16, 0.5, 0.84), axis=0)
        self.spread = np.maximum((high - low) / 2, SMALLEST_SPREAD)

    def deviation(self, score: np.ndarray, depth: np.ndarray) -> np.ndarray:
        """Return the difference of scores from their median at a depth, in standard deviations."""
        depth = np.clip(depth, *self.ends)
        median, spread = (np.interp(depth, self.knots, part) for part in (self.median, self.spread))
        return (score - self.trend(depth) - median) / spread


@dataclass(frozen=True, eq=False)
class DensityCalibration:
    """Null distribution of log densities on held-out cells, after Bates et al. (2023).

    See :class:`SupportCalibration`.

    Parameters
    ----------
    log_density
        At the posterior means of cells that training has not seen, ``(n_known,)``.

    Examples
    --------
    >>> DensityCalibration(np.arange(9.0)).p_value(np.array([-1.0, 9.0])).tolist()
    [0.1, 1.0]
    """

    log_density: np.ndarray

    def p_value(self, log_density: np.ndarray) -> np.ndarray:
        """Return the share of known cells at positions of the same or a lower density, ``(n,)``."""
        known = np.sort(-self.log_density)
        return (1 + _as_large(known, -log_density)) / (1 + len(known))

    def thin_below(self, level: float) -> float:
        """Return the log density that a share of the known cells is below."""
        return float(np.quantile(self.log_density, level))


@dataclass(frozen=True, eq=False)
class SupportCalibration:
    """Null distribution of outlier scores, estimated on held-out cells.

    Both scores depend on depth: a shallow cell has a wide posterior near the centre, and few counts
    that could contradict it. Scores are therefore standardised at each depth. As shallow cells also
    have a longer tail, a cell is ranked among known cells whose molecules were thinned to its
    depth. Known cells are standardised by others, in folds.

    Parameters
    ----------
    held_out
        Scores of cells that training has not seen, first, and of the same cells with fewer
        molecules, each array ``(n_copies, n_known)``.

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
        """Return the number of known cells."""
        return self.held_out.log_depth.shape[1]

    @cached_property
    def _fold(self) -> np.ndarray:
        """Return the fold of each known cell."""
        return np.random.default_rng(0).permutation(self.n_known) % min(N_FOLDS, self.n_known)

    @cached_property
    def _usual(self) -> list[tuple[_Usual, _Usual]]:
        """Return median and spread of either score, learnt without each fold in turn."""
        found = []
        for part in np.unique(self._fold):
            others = self._fold != part if self.n_known > 1 else self._fold == part
            log_density, reconstruction_excess, depth = (
                x.ravel() for x in self.held_out.of(others)
            )
            found.append((_Usual(log_density, depth), _Usual(reconstruction_excess, depth)))
        return found

    def outlier_score(self, scores: CellScores) -> np.ndarray:
        """Return outlier scores: the root of the summed squares of both deviations, if positive."""
        return np.mean([_outlier_score(usual, scores) for usual in self._usual], axis=0)

    @cached_property
    def _known_outlier_scores(self) -> np.ndarray:
        found = np.empty_like(self.held_out.log_depth)
        for part, usual in enumerate(self._usual):
            mine = self._fold == part
            found[:, mine] = _outlier_score(usual, self.held_out.of(mine))
        return found

    def p_value(self, scores: CellScores) -> np.ndarray:
        """Return the share of known cells that are as outlying or more, ``(n_cells,)``.

        Known cells are thinned to the cell's depth; between two depths, p-values are interpolated.
        """
        strange, known = self.outlier_score(scores), np.sort(self._known_outlier_scores, axis=1)
        ranks = np.stack([1 + _as_large(copy, strange) for copy in known]) / (1 + self.n_known)
        depth = np.median(self.held_out.log_depth, axis=1)
        rising = np.argsort(depth)
        at = np.interp(scores.log_depth, depth[rising], np.arange(len(depth)))
        below, above, cells = np.floor(at).astype(int), np.ceil(at).astype(int), np.arange(len(at))
        share = at - below
        p_value: np.ndarray = (1 - share) * ranks[rising[below], cells]
        return p_value + share * ranks[rising[above], cells]

    def is_beyond(self, scores: CellScores) -> np.ndarray:
        """Return True for cells twice as deep as any known one, or half as deep, ``(n_cells,)``."""
        known, far = self.held_out.log_depth, np.log(2)
        return (scores.log_depth < known.min() - far) | (scores.log_depth > known.max() + far)


def _outlier_score(usual: tuple[_Usual, _Usual], scores: CellScores) -> np.ndarray:
    thin, badly = usual
    off = (
        -thin.deviation(scores.log_density, scores.log_depth),
        badly.deviation(scores.reconstruction_excess, scores.log_depth),
    )
    # softly, to rank cells with two usual scores too
    return np.sqrt(sum(np.square(np.logaddexp(0.0, part)) for part in off))


def _as_large(known: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return the number of known values, sorted, that are as large or larger."""
    return len(known) - np.searchsorted(known, values, side="left")
