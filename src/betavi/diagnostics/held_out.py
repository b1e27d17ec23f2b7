"""Scores of denoised counts on held-out molecules."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import xlogy

from betavi.diagnostics.new_counts import new_count_coverage
from betavi.diagnostics.smoothing import TARGET_SUM, profiles_of, totals_of
from betavi.diagnostics.thinning import blocks

if TYPE_CHECKING:
    from collections.abc import Iterable

    from betavi.diagnostics.thinning import Thinned

FLOOR = 1e-4  # least expected count: the loss of a count with the expectation 0 is infinite
INVERSE_DISPERSIONS = (1e-2, 1e6)


def poisson_loss(counts: np.ndarray, rate: np.ndarray) -> np.ndarray:
    """Return the negative Poisson log-probability without terms that depend on counts only.

    Parameters
    ----------
    counts
        Observed counts, ``(n_cells, n_genes)``.
    rate
        Expected counts, ``(n_cells, n_genes)``.

    Returns
    -------
    Loss of each count, nats. Lower is better.

    Examples
    --------
    >>> poisson_loss(np.array([0.0, 2.0]), np.array([1.0, 2.0])).round(2)
    array([1.  , 0.61])
    """
    return rate - xlogy(counts, rate)


def poisson_deviance(counts: np.ndarray, rate: np.ndarray) -> np.ndarray:
    """Return the Poisson deviance of each count.

    The deviance is twice the difference in loss from a perfect prediction, in nats.

    Parameters
    ----------
    counts
        Observed counts, ``(n_cells, n_genes)``.
    rate
        Expected counts, ``(n_cells, n_genes)``.

    Returns
    -------
    Deviance of each count, at least 0.

    Examples
    --------
    >>> poisson_deviance(np.array([0.0, 2.0]), np.array([1.0, 2.0]))
    array([2., 0.])
    """
    return 2 * (xlogy(counts, counts) - counts + poisson_loss(counts, rate))


def nb_deviance(counts: np.ndarray, mean: np.ndarray, theta: np.ndarray) -> np.ndarray:
    """Return the negative binomial deviance of each count. See :func:`poisson_deviance`.

    Parameters
    ----------
    counts
        Observed counts, ``(n_cells, n_genes)``.
    mean
        Expected counts above 0, ``(n_cells, n_genes)``.
    theta
        Inverse dispersion of each gene, ``(n_genes,)``.

    Returns
    -------
    Deviance of each count, at least 0.

    Examples
    --------
    >>> nb_deviance(np.array([0.0, 2.0]), np.array([1.0, 2.0]), np.ones(2)).round(2)
    array([1.39, 0.  ])
    """
    excess = (counts + theta) * (np.log(counts + theta) - np.log(mean + theta))
    return 2 * (xlogy(counts, counts) - xlogy(counts, mean) - excess)


def log_normalised(values: np.ndarray) -> np.ndarray:
    """Return log(1 + counts per 10,000) of each cell.

    Parameters
    ----------
    values
        Observed or expected counts, ``(n_cells, n_genes)``.

    Returns
    -------
    Logs, same shape. Zeros for a cell without counts.

    Examples
    --------
    >>> np.expm1(log_normalised(np.array([[1.0, 3.0], [0.0, 0.0]]))).round().tolist()
    [[2500.0, 7500.0], [0.0, 0.0]]
    """
    totals = values.sum(axis=1, keepdims=True)
    return np.log1p(TARGET_SUM * values / np.where(totals > 0, totals, 1.0))


@dataclass
class DenoisingScore:
    """Score of one method on held-out molecules.

    Parameters
    ----------
    losses
        Mean Poisson loss over the genes of each cell, nats, ``(n_cells,)``.
    deviance
        Poisson deviance of each gene, summed over cells, ``(n_genes,)``.
    gain
        Deviance of the null model minus ``deviance``, summed over cells, ``(n_genes,)``.
    square_gain
        Square of this difference in each cell, summed over cells, ``(n_genes,)``.
    nb_deviance, mse_log
        Means over all entries, see :class:`DenoisingReport`.

    Examples
    --------
    >>> from betavi.diagnostics import thin
    >>> counts = np.random.default_rng(0).poisson(5.0, size=(100, 4))
    >>> HeldOutMolecules(thin(counts)).score_null().gain.tolist()
    [0.0, 0.0, 0.0, 0.0]
    """

    losses: np.ndarray
    deviance: np.ndarray
    gain: np.ndarray
    square_gain: np.ndarray
    nb_deviance: float
    mse_log: float


@dataclass
class HeldOutMolecules:
    """Held-out molecules, used to score counts that were predicted from the remaining molecules.

    Parameters
    ----------
    thinned
        Remaining and held-out molecules.
    batch
        Batch of each cell, ``(n_cells,)``. If None, all cells are one batch. For each gene, the
        null model predicts the mean of the batch or the mean of all cells, whichever is better.

    Examples
    --------
    >>> from betavi.diagnostics import thin
    >>> rate = np.repeat([[2.0, 8.0], [8.0, 2.0]], 100, axis=0)
    >>> held_out = HeldOutMolecules(thin(np.random.default_rng(0).poisson(rate), fraction=0.5))
    >>> truth = held_out.score([rate / 2])
    >>> bool(truth.losses.mean() < held_out.score_null().losses.mean())
    True
    """

    thinned: Thinned
    batch: np.ndarray | None = None
    theta: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        """Fit the null model, and the dispersion of each gene around it."""
        kept = self.thinned.kept
        n_cells, n_genes = kept.shape
        self._totals, self.theta = totals_of(kept), np.ones(n_genes)
        self._batch = np.zeros(n_cells, dtype=np.int64)
        self._profiles = profiles_of(kept, self._batch)
        if self.batch is not None and len(np.unique(self.batch)) > 1:
            self._use_batch_means(self.batch)
        excess = square = np.zeros(n_genes)
        for rows in blocks(n_cells):
            rate = self.null(rows)
            excess = excess + (np.square(kept[rows].toarray() - rate) - rate).sum(axis=0)
            square = square + np.square(rate).sum(axis=0)
        self.theta = (square / excess.clip(1e-300)).clip(*INVERSE_DISPERSIONS)

    def _use_batch_means(self, batch: np.ndarray) -> None:
        """Use batch means in the null model for genes that batch means predict better."""
        of_all, alone = self._profiles, self.score_null().deviance
        self._batch, self._profiles = batch, profiles_of(self.thinned.kept, batch)
        is_worse = self.score_null().deviance >= alone
        self._profiles = np.where(is_worse, of_all, self._profiles)

    def null(self, rows: slice) -> np.ndarray:
        """Return the null prediction: totals of the cells times gene shares, ``(n, n_genes)``."""
        return self._totals[rows] * self._profiles[self._batch[rows]]

    def score_null(self) -> DenoisingScore:
        """Score the null model."""
        return self.score(self.null(rows) for rows in blocks(len(self._totals)))

    def score(self, expected: Iterable[np.ndarray]) -> DenoisingScore:
        """Score blocks of expected counts, ``(n, n_genes)``, at the remaining depth."""
        n_cells, n_genes = self.thinned.kept.shape
        deviance, gain, square_gain = np.zeros((3, n_genes))
        score = DenoisingScore(np.zeros(n_cells), deviance, gain, square_gain, 0.0, 0.0)
        start = 0
        for block in expected:
            self._add(score, slice(start, start + len(block)), block.astype(np.float64))
            start += len(block)
        return score

    def coverage(self, moments: Iterable[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
        """Return the share of held-out counts inside their 90 % interval, by gene.

        Blocks of expected counts and standard deviations at the remaining depth, both
        ``(n, n_genes)``, give the intervals. See :func:`new_count_coverage`.
        """
        total, start = np.zeros(self.thinned.kept.shape[1]), 0
        for mean, std in moments:
            counts = self.thinned.held_out[start : start + len(mean)].toarray()
            odds = self.thinned.odds
            total += new_count_coverage(counts, mean * odds, std * odds).sum(axis=0)
            start += len(mean)
        return total / start

    def _add(self, score: DenoisingScore, rows: slice, expected: np.ndarray) -> None:
        counts = self.thinned.held_out[rows].toarray().astype(np.float64)
        rate = (expected * self.thinned.odds).clip(FLOOR)
        deviance = poisson_deviance(counts, rate)
        null = (self.null(rows) * self.thinned.odds).clip(FLOOR)
        gain = poisson_deviance(counts, null) - deviance
        score.losses[rows] = poisson_loss(counts, rate).mean(axis=1)
        score.deviance += deviance.sum(axis=0)
        score.gain += gain.sum(axis=0)
        score.square_gain += np.square(gain).sum(axis=0)
        n_entries = self.thinned.kept.shape[0] * self.thinned.kept.shape[1]
        score.nb_deviance += nb_deviance(counts, rate, self.theta).sum() / n_entries
        off = log_normalised(expected) - log_normalised(counts)
        score.mse_log += np.square(off).sum() / n_entries
