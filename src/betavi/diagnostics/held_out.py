"""Molecules that were held out, and what denoised counts are worth by them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

import numpy as np
from scipy.special import xlogy

from betavi.diagnostics.smoothing import TARGET_SUM, profiles_of, totals_of
from betavi.diagnostics.thinning import blocks

if TYPE_CHECKING:
    from collections.abc import Iterable

    from betavi.diagnostics.thinning import Thinned

FLOOR = 1e-4
"""Fewest molecules that may be expected: what expects none, and is wrong, would be infinitely so."""

INVERSE_DISPERSIONS = (1e-2, 1e6)


def poisson_loss(counts: np.ndarray, rate: np.ndarray) -> np.ndarray:
    """Return minus the Poisson log-probability of counts given rates, up to what depends on counts.

    Lower is better. In the other order the arguments are no score.

    Parameters
    ----------
    counts
        Observed, ``(n_cells, n_genes)``.
    rate
        Expected counts, of the same shape.

    Returns
    -------
    Nats, one for each count.

    Examples
    --------
    >>> import numpy as np
    >>> from betavi.diagnostics import poisson_loss
    >>> poisson_loss(np.array([0.0, 2.0]), np.array([1.0, 2.0])).round(2)
    array([1.  , 0.61])
    """
    return rate - xlogy(counts, rate)


def poisson_deviance(counts: np.ndarray, rate: np.ndarray) -> np.ndarray:
    """Return twice the nats by which a rate is worse than one that equals the count.

    Parameters
    ----------
    counts, rate
        See :func:`poisson_loss`.

    Returns
    -------
    Deviances, one for each count; at least 0.

    Examples
    --------
    >>> import numpy as np
    >>> from betavi.diagnostics import poisson_deviance
    >>> poisson_deviance(np.array([0.0, 2.0]), np.array([1.0, 2.0]))
    array([2., 0.])
    """
    return 2 * (xlogy(counts, counts) - counts + poisson_loss(counts, rate))


def nb_deviance(counts: np.ndarray, mean: np.ndarray, theta: np.ndarray) -> np.ndarray:
    """Return the deviance of a negative binomial: twice the nats a mean is worse than the count.

    Parameters
    ----------
    counts
        Observed, ``(n_cells, n_genes)``.
    mean
        Expected counts, above 0, of the same shape.
    theta
        Inverse dispersion of each gene, ``(n_genes,)``.

    Returns
    -------
    Deviances, one for each count; at least 0.

    Examples
    --------
    >>> import numpy as np
    >>> from betavi.diagnostics import nb_deviance
    >>> nb_deviance(np.array([0.0, 2.0]), np.array([1.0, 2.0]), np.ones(2)).round(2)
    array([1.39, 0.  ])
    """
    excess = (counts + theta) * (np.log(counts + theta) - np.log(mean + theta))
    return 2 * (xlogy(counts, counts) - xlogy(counts, mean) - excess)


def log_normalised(values: np.ndarray) -> np.ndarray:
    """Return log(1 + counts per 10,000) of each cell, ``(n_cells, n_genes)``.

    Parameters
    ----------
    values
        Counts, or expected counts, ``(n_cells, n_genes)``.

    Returns
    -------
    Logs; zeros of a cell without counts.

    Examples
    --------
    >>> import numpy as np
    >>> from betavi.diagnostics import log_normalised
    >>> np.expm1(log_normalised(np.array([[1.0, 3.0], [0.0, 0.0]]))).round().tolist()
    [[2500.0, 7500.0], [0.0, 0.0]]
    """
    totals = values.sum(axis=1, keepdims=True)
    return np.log1p(TARGET_SUM * values / np.where(totals > 0, totals, 1.0))


@dataclass
class DenoisingScore:
    """How well one method expects molecules that it has not seen.

    Parameters
    ----------
    losses
        Mean Poisson loss over the genes of each cell, nats, ``(n_cells,)``.
    deviance
        Poisson deviance of each gene, summed over cells, ``(n_genes,)``.
    gain, square_gain
        What the deviance is less than the null's, and the square of it, summed likewise.
    nb_deviance, mse_log
        Means over all entries, see :class:`DenoisingReport`.

    Examples
    --------
    >>> import numpy as np
    >>> from betavi.diagnostics import HeldOutMolecules, thin
    >>> counts = np.random.default_rng(0).poisson(5.0, size=(100, 4))
    >>> score = HeldOutMolecules(thin(counts)).score_null()
    >>> score.losses.shape, score.gain.tolist()
    ((100,), [0.0, 0.0, 0.0, 0.0])
    """

    losses: np.ndarray
    deviance: np.ndarray
    gain: np.ndarray
    square_gain: np.ndarray
    nb_deviance: float
    mse_log: float

    @classmethod
    def of_nothing(cls, n_cells: int, n_genes: int) -> Self:
        """Return the score before a cell was scored."""
        deviance, gain, square_gain = np.zeros((3, n_genes))
        return cls(np.zeros(n_cells), deviance, gain, square_gain, 0.0, 0.0)


@dataclass
class HeldOutMolecules:
    """Molecules that were held out, to score rates expected from those that were kept.

    Parameters
    ----------
    thinned
        The two.
    batch
        A code for each cell, ``(n_cells,)``: the null knows the mean of each gene in each batch, so
        that telling batches apart is worth nothing, but for genes of which the mean over all cells
        foretells more. One batch if None.

    Examples
    --------
    >>> import numpy as np
    >>> from betavi.diagnostics import HeldOutMolecules, thin
    >>> rate = np.repeat([[2.0, 8.0], [8.0, 2.0]], 100, axis=0)
    >>> counts = np.random.default_rng(0).poisson(rate)
    >>> held_out = HeldOutMolecules(thin(counts, fraction=0.5))
    >>> truth = held_out.score([rate / 2])
    >>> bool(truth.losses.mean() < held_out.score_null().losses.mean())
    True
    """

    thinned: Thinned
    batch: np.ndarray | None = None
    theta: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        """Measure how far each gene varies beyond Poisson noise, to score by, whatever is scored."""
        kept = self.thinned.kept
        n_cells, n_genes = kept.shape
        self._totals = totals_of(kept)
        one = np.zeros(n_cells, dtype=np.int64)
        self._batch, self.theta = one, np.ones(n_genes)
        self._profiles = profiles_of(kept, one)
        if self.batch is not None and len(np.unique(self.batch)) > 1:
            self._let_batches_in(self.batch)
        excess = square = np.zeros(n_genes)
        for rows in blocks(n_cells):
            rate = self.null(rows)
            excess = excess + (np.square(kept[rows].toarray() - rate) - rate).sum(axis=0)
            square = square + np.square(rate).sum(axis=0)
        low, high = INVERSE_DISPERSIONS
        self.theta = (square / excess.clip(1e-300)).clip(low, high)

    def _let_batches_in(self, batch: np.ndarray) -> None:
        """Give genes a mean in each batch, where that is the better null.

        Of a few cells a mean is poor, and to be better than a poor null is to know nothing.
        """
        of_all, alone = self._profiles, self.score_null().deviance
        self._batch, self._profiles = batch, profiles_of(self.thinned.kept, batch)
        is_worse = self.score_null().deviance >= alone
        self._profiles = np.where(is_worse, of_all, self._profiles)

    def null(self, rows: slice) -> np.ndarray:
        """Return each cell's total times the share of each gene, of all or in its batch."""
        shares: np.ndarray = self._totals[rows] * self._profiles[self._batch[rows]]
        return shares

    def score_null(self) -> DenoisingScore:
        """Score what knows of no difference between the cells of a batch but their depth."""
        return self.score(self.null(rows) for rows in blocks(len(self._totals)))

    def score(self, expected: Iterable[np.ndarray]) -> DenoisingScore:
        """Score expected counts of consecutive cells.

        Parameters
        ----------
        expected
            Blocks of cells by genes, at the depth of the counts that were kept.
        """
        n_cells, n_genes = self.thinned.kept.shape
        score = DenoisingScore.of_nothing(n_cells, n_genes)
        start = 0
        for block in expected:
            rows = slice(start, start + len(block))
            self._add(score, rows, block.astype(np.float64))
            start = rows.stop
        return score

    def _add(self, score: DenoisingScore, rows: slice, expected: np.ndarray) -> None:
        """Add a block of cells to a score."""
        null = self.null(rows)
        counts = self.thinned.held_out[rows].toarray().astype(np.float64)
        rate = (expected * self.thinned.odds).clip(FLOOR)
        deviance = poisson_deviance(counts, rate)
        gain = poisson_deviance(counts, (null * self.thinned.odds).clip(FLOOR)) - deviance
        score.losses[rows] = poisson_loss(counts, rate).mean(axis=1)
        score.deviance += deviance.sum(axis=0)
        score.gain += gain.sum(axis=0)
        score.square_gain += np.square(gain).sum(axis=0)
        n_entries = self.thinned.kept.shape[0] * self.thinned.kept.shape[1]
        score.nb_deviance += nb_deviance(counts, rate, self.theta).sum() / n_entries
        off = log_normalised(expected) - log_normalised(counts)
        score.mse_log += np.square(off).sum() / n_entries
