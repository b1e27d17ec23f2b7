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
"""Inverse strengths of the penalty, one of which is chosen by the log loss of one fold."""

N_FOLDS, MOST_STEPS = 5, 300
"""Folds whose labels are predicted from the other folds, and most steps of a fit. Not tuned."""

LOG_TEMPERATURES = (-3.0, 3.0)
"""Range of the log temperature."""

SMALLEST = 1e-12
"""Smallest probability, so that every logarithm is finite."""


class Classifier(NamedTuple):
    """Classifier of all reference cells, and log probabilities of each cell from the other folds."""

    fitted: LogisticRegression
    crossed: np.ndarray

    def log_probabilities(self, counts: sparse.csr_matrix, n_labels: int) -> np.ndarray:
        """Return log probabilities, ``(n_cells, n_labels)``."""
        return _log_probabilities(self.fitted, counts, n_labels)


def fit_classifier(counts: sparse.csr_matrix, codes: np.ndarray, n_labels: int) -> Classifier:
    """Fit a logistic regression on log counts, and predict each fold from the other folds.

    Parameters
    ----------
    counts
        Log counts of reference cells, ``(n_cells, n_features)``.
    codes
        Number of each cell's label, ``(n_cells,)``.
    n_labels
        Number of labels.

    Raises
    ------
    ValueError
        If the cells have only one label.

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
    folds = np.zeros(len(codes), dtype=int)
    # a label with fewer cells than folds is missing from some folds
    split = StratifiedKFold(min(N_FOLDS, len(codes)), shuffle=True, random_state=0)
    for number, (_, part) in enumerate(split.split(counts, codes)):
        folds[part] = number
    crossed = np.zeros((len(codes), n_labels))
    first = folds == 0
    losses = []
    for strength in STRENGTHS:
        fitted = _fit(counts[~first], codes[~first], strength)
        found = _log_probabilities(fitted, counts[first], n_labels)
        losses.append(-found[np.arange(len(found)), codes[first]].mean())
        if losses[-1] == min(losses):
            crossed[first], best = found, strength
    for number in range(1, folds.max() + 1):
        part = folds == number
        fitted = _fit(counts[~part], codes[~part], best)
        crossed[part] = _log_probabilities(fitted, counts[part], n_labels)
    return Classifier(_fit(counts, codes, best), crossed)


def _fit(counts: sparse.csr_matrix, codes: np.ndarray, strength: float) -> LogisticRegression:
    with warnings.catch_warnings():
        # the last steps of a weak penalty hardly change the probabilities
        warnings.simplefilter("ignore", ConvergenceWarning)
        return LogisticRegression(C=strength, max_iter=MOST_STEPS).fit(counts, codes)


def _log_probabilities(fitted: LogisticRegression, counts: Any, n_labels: int) -> np.ndarray:
    found = np.full((counts.shape[0], n_labels), SMALLEST)
    found[:, fitted.classes_] = np.maximum(fitted.predict_proba(counts), SMALLEST)
    log_probabilities: np.ndarray = np.log(found)
    return log_probabilities


def combine(parts: list[np.ndarray], prior: np.ndarray) -> np.ndarray:
    """Combine log probabilities from several assays, as if these were independent given the label.

    Parameters
    ----------
    parts
        Log probabilities from each assay, ``(n_cells, n_labels)``.
    prior
        Share of each label, ``(n_labels,)``.

    Returns
    -------
    Scores, ``(n_cells, n_labels)``, up to a constant per cell.

    Examples
    --------
    >>> import numpy as np
    >>> from betavi.diagnostics import combine
    >>> part = np.log([[0.8, 0.2]])
    >>> np.exp(combine([part, part], np.array([0.5, 0.5]))).round(2).tolist()
    [[1.28, 0.08]]
    """
    total: np.ndarray = np.sum(parts, axis=0) - (len(parts) - 1) * np.log(prior)
    return total


class LabelCalibration(NamedTuple):
    """Temperature of the probabilities, and the least probability of a label in a label set."""

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
    rank = int(np.floor((1 - level) * (len(codes) + 1)))
    return found._replace(least=float(of_label[rank - 1]) if rank else 0.0)
