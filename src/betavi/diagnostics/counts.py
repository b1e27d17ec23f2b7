"""Scores of predicted count distributions, for any likelihood."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.special import logsumexp


@dataclass(frozen=True)
class GeneMoments:
    """Moments of each gene over cells.

    Parameters
    ----------
    zeros
        Share of cells with zero counts, ``(n_genes,)``.
    mean, variance
        Mean and variance of the counts over cells, ``(n_genes,)``.

    Examples
    --------
    >>> GeneMoments(np.array([0.5]), np.array([2.0]), np.array([4.0])).zeros
    array([0.5])
    """

    zeros: np.ndarray
    mean: np.ndarray
    variance: np.ndarray


class CountTerms(NamedTuple):
    """Predictions of a model for a minibatch of counts.

    Parameters
    ----------
    log_mass
        Log-probability of each count at each draw of z, ``(n_draws, n_cells, n_genes)``.
    log_ratio
        log q(z given x) - log p(z), ``(n_draws, n_cells)``. For a latent library size, the same
        difference is added.
    rate
        Rate (KL divergence from the prior) of z, ``(n_cells,)``.
    library_rate
        Rate of the library size, ``(n_cells,)``. 0 if the library size is observed.
    log_detection
        Log-probability of the observed zero or non-zero, same shape as ``log_mass``.
    zeros
        Probability of a zero count, same shape as ``log_mass``.
    mean, variance
        Mean and variance of the distribution of each count, same shape as ``log_mass``.

    Examples
    --------
    >>> CountTerms(*np.ones((8, 1, 1))).mean  # see ScoreSums
    array([[1.]])
    """

    log_mass: np.ndarray
    log_ratio: np.ndarray
    rate: np.ndarray
    library_rate: np.ndarray
    log_detection: np.ndarray
    zeros: np.ndarray
    mean: np.ndarray
    variance: np.ndarray


@dataclass(frozen=True)
class CountScore:
    """Score of a model of counts. Log-probabilities are in nats per cell.

    Parameters
    ----------
    rate
        Rate (KL divergence of the posteriors from the prior). Infinite for an autoencoder.
    evidence
        Importance-weighted lower bound of the log-probability of the counts.
    distortion
        Negative log-probability of the counts at a draw from the posterior. The rate of a latent
        library size is included.
    detection
        Negative log-probability of the pattern of zeros at a draw from the posterior.
    predicted, observed
        Moments of each gene in the model, and in the data.
    total
        Mean total count of a cell.

    Examples
    --------
    >>> import betavi
    >>> counts = betavi.datasets.simulate_counts(n_cells=200, n_genes=20).X
    >>> score = betavi.metrics.LinearModel(counts, n_components=2).score(counts)
    >>> score.row()["elbo"] == -(score.rate + score.distortion)
    True
    """

    rate: float
    distortion: float
    evidence: float
    detection: float
    predicted: GeneMoments
    observed: GeneMoments
    total: float

    def row(self) -> dict[str, float]:
        """Return the score as one row of a table."""
        elbo = -(self.rate + self.distortion)
        # the variance of a gene without counts is 0
        seen = self.observed.mean > 0
        spread = self.predicted.variance[seen] / self.observed.variance[seen]
        return {
            "elbo": elbo,
            "rate": self.rate,
            "distortion": self.distortion,
            "evidence": self.evidence,
            "nats_per_count": -elbo / self.total,
            "detection": self.detection,
            "zero_fraction": float(self.predicted.zeros.mean()),
            "zero_error": float(np.abs(self.predicted.zeros - self.observed.zeros).mean()),
            "variance_ratio": float(np.median(spread)),
        }


class ScoreSums:
    """Sums over minibatches, from which the score is computed.

    Examples
    --------
    A count of 0 under a Poisson distribution with mean 1, without a latent variable:

    >>> one, none = np.ones((1, 1, 1)), (np.zeros((1, 1)), np.zeros(1), np.zeros(1))
    >>> sums = ScoreSums()
    >>> sums.add(np.zeros((1, 1)), CountTerms(-one, *none, -one, np.exp(-one), one, one))
    >>> sums.score().distortion
    1.0
    """

    def __init__(self) -> None:
        self._cells: list[np.ndarray] = []
        self._genes: list[np.ndarray] = []

    def add(self, counts: np.ndarray, terms: CountTerms) -> None:
        """Add a minibatch of counts, ``(n_cells, n_genes)``, and a model's predictions for them."""
        per_draw = terms.log_mass.sum(axis=-1)
        evidence = logsumexp(per_draw - terms.log_ratio, axis=0) - np.log(len(per_draw))
        distortion = terms.library_rate - per_draw.mean(axis=0)
        detection = -terms.log_detection.sum(axis=-1).mean(axis=0)
        total = counts.sum(axis=1)
        self._cells.append(np.stack([terms.rate, distortion, evidence, detection, total]))
        second = np.square(terms.mean) + terms.variance
        expected = [value.mean(axis=0).sum(axis=0) for value in (terms.zeros, terms.mean, second)]
        observed = [(counts == 0).sum(axis=0), counts.sum(axis=0), np.square(counts).sum(axis=0)]
        self._genes.append(np.stack(expected + observed))

    def score(self) -> CountScore:
        """Return the score of all cells."""
        cells = np.concatenate(self._cells, axis=1)
        rate, distortion, evidence, detection, total = cells.mean(axis=1).tolist()
        moments = np.sum(self._genes, axis=0) / cells.shape[1]
        predicted, observed = (
            GeneMoments(zeros, mean, second - np.square(mean))
            for zeros, mean, second in (moments[:3], moments[3:])
        )
        return CountScore(rate, distortion, evidence, detection, predicted, observed, total)
