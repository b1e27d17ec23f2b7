"""Classification of cells by logistic regression, with calibrated probabilities and label sets."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from scipy import optimize, special
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold

if TYPE_CHECKING:
    from scipy import sparse

STRENGTHS = (0.01, 0.1, 1.0)
"""Inverse strengths of the penalty. The log loss of one fold chooses between them."""

N_FOLDS, MOST_STEPS = 5, 300
"""Number of folds, and most steps of a fit. Not tuned."""

LOG_TEMPERATURES = (-3.0, 3.0)
"""Range of the log temperature."""

SMALLEST = 1e-12
"""Smallest probability, so that every logarithm is finite."""


class Classifier(NamedTuple):
    """Classifier of all reference cells, and evidence of each cell from the other folds.

    Evidence is log p(label given counts) - log p(label): 0 says nothing about a label, and a label
    that the classifier has not seen has 0.

    Parameters
    ----------
    fitted
        Logistic regression of scikit-learn.
    log_prior
        Log share of each label, ``(n_labels,)``.
    crossed
        Evidence of each reference cell, from the other folds, ``(n_cells, n_labels)``.

    Examples
    --------
    >>> import numpy as np
    >>> from scipy import sparse
    >>> from betavi.diagnostics import fit_classifier
    >>> codes = np.repeat([0, 1], 20)
    >>> found = fit_classifier(sparse.csr_matrix(np.eye(2)[codes]), codes, n_labels=2)
    >>> found.evidence(sparse.csr_matrix([[0.0, 1.0]])).argmax()
    np.int64(1)
    """

    fitted: LogisticRegression
    log_prior: np.ndarray
    crossed: np.ndarray

    def evidence(self, counts: sparse.csr_matrix) -> np.ndarray:
        """Return the evidence of new cells, ``(n_cells, n_labels)``."""
        return _evidence(self.fitted, counts, self.log_prior)


def fit_classifier(counts: sparse.csr_matrix, codes: np.ndarray, n_labels: int) -> Classifier:
    """Fit a logistic regression on log counts, and predict each fold from the other folds.

    Parameters
    ----------
    counts
        Log counts of reference cells, ``(n_cells, n_features)``, with at least two labels.
    codes
        Number of each cell's label, ``(n_cells,)``.
    n_labels
        Number of labels.

    Returns
    -------
    The classifier of all cells, with the evidence of each cell from the other folds.

    Examples
    --------
    >>> import numpy as np
    >>> from scipy import sparse
    >>> from betavi.diagnostics import fit_classifier
    >>> codes = np.repeat([0, 1], 20)
    >>> counts = sparse.csr_matrix(np.eye(2)[codes])
    >>> found = fit_classifier(counts, codes, n_labels=2)
    >>> bool((found.crossed.argmax(axis=1) == codes).all())
    True
    """
    log_prior = log_shares(codes, n_labels)
    folds = folds_of(codes)
    crossed = np.zeros((len(codes), n_labels))
    best, losses = STRENGTHS[0], []
    for number in range(folds.max() + 1):
        part = folds == number
        # the first fold chooses the penalty
        for strength in STRENGTHS if number == 0 else (best,):
            if len(np.unique(codes[~part])) < 2:
                continue
            fitted = _fit(counts[~part], codes[~part], strength)
            found = _evidence(fitted, counts[part], log_shares(codes[~part], n_labels))
            if number == 0:
                scores = special.log_softmax(found + log_prior, axis=1)
                losses.append(-scores[np.arange(len(scores)), codes[part]].mean())
                if losses[-1] > min(losses):
                    continue
                best = strength
            crossed[part] = found
    return Classifier(_fit(counts, codes, best), log_prior, crossed)


def log_shares(codes: np.ndarray, n_labels: int) -> np.ndarray:
    """Return the log share of each label, ``(n_labels,)``. One cell is added to each label.

    Parameters
    ----------
    codes
        Number of each cell's label, ``(n_cells,)``.
    n_labels
        Number of labels.

    Returns
    -------
    Logarithms of shares that sum to 1.

    Examples
    --------
    >>> import numpy as np
    >>> from betavi.diagnostics import log_shares
    >>> np.exp(log_shares(np.array([0, 0, 1]), 2)).round(2).tolist()
    [0.6, 0.4]
    """
    counts = np.bincount(codes, minlength=n_labels) + 1
    shares: np.ndarray = np.log(counts / counts.sum())
    return shares


def folds_of(codes: np.ndarray) -> np.ndarray:
    """Return the fold of each cell. Labels with few cells are missing from some folds."""
    folds = np.zeros(len(codes), dtype=int)
    n_folds = min(N_FOLDS, int(np.bincount(codes).max()))
    if n_folds < 2:
        return folds
    split = StratifiedKFold(n_folds, shuffle=True, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        for number, (_, part) in enumerate(split.split(codes, codes)):
            folds[part] = number
    return folds


def _fit(counts: sparse.csr_matrix, codes: np.ndarray, strength: float) -> LogisticRegression:
    with warnings.catch_warnings():
        # the last steps of a weak penalty hardly change the probabilities
        warnings.simplefilter("ignore", ConvergenceWarning)
        return LogisticRegression(C=strength, max_iter=MOST_STEPS).fit(counts, codes)


def _evidence(fitted: LogisticRegression, counts: Any, log_prior: np.ndarray) -> np.ndarray:
    found = np.zeros((counts.shape[0], len(log_prior)))
    probabilities = np.maximum(fitted.predict_proba(counts), SMALLEST)
    found[:, fitted.classes_] = np.log(probabilities) - log_prior[fitted.classes_]
    return found


class LabelCalibration(NamedTuple):
    """Temperature of the probabilities, and the least probability of a label in a label set.

    Parameters
    ----------
    temperature
        Divisor of the log probabilities. Above 1, probabilities were too sure.
    least
        Least probability of a label in a label set.

    Examples
    --------
    >>> import numpy as np
    >>> from betavi.diagnostics import LabelCalibration
    >>> LabelCalibration(2.0, 0.3).probabilities(np.log([[0.8, 0.2]])).round(2).tolist()
    [[0.67, 0.33]]
    """

    temperature: float
    least: float

    def probabilities(self, scores: np.ndarray) -> np.ndarray:
        """Return calibrated probabilities, ``(n_cells, n_labels)``."""
        found: np.ndarray = special.softmax(scores / self.temperature, axis=1)
        return found

    def sets(self, probabilities: np.ndarray) -> np.ndarray:
        """Return True for the labels in each cell's set, ``(n_cells, n_labels)``."""
        chosen = probabilities >= self.least
        chosen[np.arange(len(chosen)), probabilities.argmax(axis=1)] = True
        return chosen


def label_loss(scores: np.ndarray, codes: np.ndarray) -> float:
    """Return the mean log loss of calibrated probabilities, in nats per cell.

    Parameters
    ----------
    scores, codes
        See :func:`calibrate_labels`.

    Returns
    -------
    The loss at the best temperature.

    Examples
    --------
    >>> import numpy as np
    >>> from betavi.diagnostics import label_loss
    >>> round(label_loss(np.log(np.full((4, 2), 0.5)), np.array([0, 1, 0, 1])), 2)
    0.69
    """
    probabilities = calibrate_labels(scores, codes, level=0.5).probabilities(scores)
    return float(-np.log(np.maximum(probabilities[np.arange(len(codes)), codes], SMALLEST)).mean())


def calibrate_labels(scores: np.ndarray, codes: np.ndarray, level: float) -> LabelCalibration:
    """Calibrate probabilities and label sets on cells that the classifier has not seen.

    Parameters
    ----------
    scores
        Log probabilities, ``(n_cells, n_labels)``.
    codes
        Number of each cell's label, ``(n_cells,)``.
    level
        Share of new cells whose label is in their set.

    Returns
    -------
    The calibration, for new scores.

    References
    ----------
    Guo et al. (2017), On calibration of modern neural networks. Sadinle et al. (2019), Least
    ambiguous set-valued classifiers with bounded error levels.

    Examples
    --------
    >>> import numpy as np
    >>> from betavi.diagnostics import calibrate_labels
    >>> codes = np.repeat([0, 1], 50)
    >>> scores = np.log(np.full((100, 2), 0.5))
    >>> calibrate_labels(scores, codes, 0.9).sets(np.exp(scores)).sum(axis=1).max()
    np.int64(2)
    """
    rows = np.arange(len(codes))

    def loss(log_temperature: float) -> float:
        found = special.log_softmax(scores / np.exp(log_temperature), axis=1)
        return float(-found[rows, codes].mean())

    best = optimize.minimize_scalar(loss, bounds=LOG_TEMPERATURES, method="bounded").x
    found = LabelCalibration(float(np.exp(best)), 0.0)
    of_label = np.sort(found.probabilities(scores)[rows, codes])
    # rounding must not lose a rank
    rank = min(int(np.floor((1 - level) * (len(codes) + 1) + 1e-9)), len(codes))
    return found._replace(least=float(of_label[rank - 1]) if rank else 0.0)
