"""P-values of cells that resemble no labelled cell, calibrated on labelled cells of similar depth."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy import sparse
from sklearn.utils.extmath import randomized_svd

from betavi.diagnostics.labels import folds_of
from betavi.diagnostics.support import CellScores, SupportCalibration

if TYPE_CHECKING:
    from collections.abc import Sequence

N_COMPONENTS = 20
"""Number of components. ``benchmarks.labels`` names the data that it was chosen on."""

N_WORST = 30
"""Number of features per cell that are scored: those that exceed the mean of the label most."""

N_PRIOR = 50
"""Number of cells that the variances of all labels count for, beside a label's own. Not tuned."""

N_OVERALL = 30
"""Number of cells that the median score of all labels counts for, beside a label's own. Not tuned."""

N_FITTED = 3
"""Number of copies, the first ones, that means and variances are estimated from. Not tuned."""

SMALLEST_VARIANCE, SMALLEST = 1e-3, 1e-9
RIDGE, VARIANCE_SHARE = 1e-6, 0.1
BLOCK = 2048  # cells whose values are in memory at once


class LabelShapes(NamedTuple):
    """Means and variances of the cells of each label.

    Parameters
    ----------
    names
        Numbers of the labels, ``(n_labels,)``.
    components
        Components of the log counts, ``(n_components, n_features)``.
    centres, precisions, log_volumes
        Normal distribution of each label in these components: mean, ``(n_labels, n_components)``,
        inverse covariance, and log determinant of the covariance.
    means, variances
        Mean and variance of each feature by label, ``(n_labels, n_features)``.

    Examples
    --------
    >>> import numpy as np
    >>> from scipy import sparse
    >>> from betavi.diagnostics.novelty import fit_shapes
    >>> counts = sparse.csr_matrix([[1.0, 0.0], [1.2, 0.0], [0.0, 1.0], [0.0, 1.4]])
    >>> fit_shapes(counts, np.array([0, 0, 1, 1])).means.round(1).tolist()
    [[1.1, 0.0], [0.0, 1.2]]
    """

    names: np.ndarray
    components: np.ndarray
    centres: np.ndarray
    precisions: np.ndarray
    log_volumes: np.ndarray
    means: np.ndarray
    variances: np.ndarray

    def nearest(self, counts: sparse.csr_matrix) -> tuple[np.ndarray, np.ndarray]:
        """Return the likeliest label, and the squared Mahalanobis distance to it."""
        places = counts @ self.components.T
        distances = np.stack(
            [
                np.einsum("ij,jk,ik->i", places - centre, precision, places - centre)
                for centre, precision in zip(self.centres, self.precisions, strict=True)
            ],
            axis=1,
        )
        best = (distances + self.log_volumes).argmin(axis=1)
        return self.names[best], distances[np.arange(len(best)), best]

    def excess(self, counts: sparse.csr_matrix) -> np.ndarray:
        """Return the summed squares of the largest excesses over a label's means, ``(n_cells,)``.

        Each excess is in standard deviations of the label. The label with the smallest sum counts.
        """
        blocks = [counts[start : start + BLOCK] for start in range(0, counts.shape[0], BLOCK)]
        return np.concatenate([np.zeros(0), *(self._excess(block) for block in blocks)])

    def _excess(self, counts: sparse.csr_matrix) -> np.ndarray:
        # a zero exceeds no mean, so that stored values are enough
        sizes = np.diff(counts.indptr)
        rows = np.repeat(np.arange(len(sizes)), sizes)
        columns = np.arange(counts.nnz) - counts.indptr[rows]
        width = max(int(sizes.max(initial=0)), N_WORST)
        squares, best = np.zeros((len(sizes), width)), np.full(len(sizes), np.inf)
        for mean, variance in zip(self.means, self.variances, strict=True):
            above = np.maximum(counts.data - mean[counts.indices], 0)
            squares[rows, columns] = above**2 / variance[counts.indices]
            worst = np.partition(squares, width - N_WORST, axis=1)[:, -N_WORST:]
            best = np.minimum(best, worst.sum(axis=1))
        return best


def fit_shapes(counts: sparse.csr_matrix, codes: np.ndarray) -> LabelShapes:
    """Estimate means and variances of each label. Few cells are pooled with all labels.

    Parameters
    ----------
    counts
        Log counts, ``(n_cells, n_features)``, not negative.
    codes
        Number of each cell's label, ``(n_cells,)``.

    Returns
    -------
    The estimates, for the labels that have cells.

    References
    ----------
    Lee et al. (2018), A simple unified framework for detecting out-of-distribution samples and
    adversarial attacks, on Mahalanobis distances to classes.

    Examples
    --------
    >>> import numpy as np
    >>> from scipy import sparse
    >>> from betavi.diagnostics.novelty import fit_shapes
    >>> counts = sparse.csr_matrix(np.random.default_rng(0).poisson(1.0, (50, 3)))
    >>> found = fit_shapes(counts.astype(float), np.repeat([0, 1], 25))
    >>> found.centres.shape, found.variances.shape
    ((2, 3), (2, 3))
    """
    names, codes = np.unique(codes, return_inverse=True)
    sizes = np.bincount(codes)[:, None]
    members = sparse.csr_matrix((np.ones(len(codes)), (codes, np.arange(len(codes)))))
    n_components = min(N_COMPONENTS, *counts.shape)
    components = randomized_svd(counts, n_components, n_iter=4, random_state=0)[2]
    places = counts @ components.T
    centres = members @ places / sizes
    covariances = _covariances(places - centres[codes], codes, len(names))
    means = (members @ counts).toarray() / sizes
    own = (members @ counts.multiply(counts)).toarray() / sizes - means**2
    pooled = (own * sizes).sum(axis=0) / len(codes)
    variances = (own * sizes + N_PRIOR * pooled) / (sizes + N_PRIOR)
    floor = VARIANCE_SHARE * np.median(pooled) + SMALLEST_VARIANCE
    log_volumes = np.linalg.slogdet(covariances)[1]
    precisions = np.linalg.inv(covariances)
    parts = centres, precisions, log_volumes, means, variances + floor
    return LabelShapes(names, components, *parts)


def _covariances(rest: np.ndarray, codes: np.ndarray, n_labels: int) -> np.ndarray:
    """Return the covariance of each label, shrunk to the covariance within all labels."""
    pooled = rest.T @ rest / len(rest)
    pooled += (RIDGE * np.trace(pooled) / len(pooled) + SMALLEST) * np.eye(len(pooled))
    parts = [rest[codes == code] for code in range(n_labels)]
    return np.stack([(part.T @ part + N_PRIOR * pooled) / (len(part) + N_PRIOR) for part in parts])


class NoveltyTest(NamedTuple):
    """Test for cells that resemble no label.

    Parameters
    ----------
    shapes
        Means and variances of each label.
    usual
        Median scores of each label, ``(n_labels, 2)``, which are subtracted.
    calibration
        Null distribution of the scores, from labelled cells that were left out of the estimates.

    Examples
    --------
    >>> import numpy as np
    >>> from scipy import sparse
    >>> from betavi.diagnostics import fit_novelty
    >>> rng = np.random.default_rng(0)
    >>> known = sparse.csr_matrix(rng.poisson([3.0, 3.0, 0.1], (200, 3)).astype(float))
    >>> found = fit_novelty([known], np.zeros((1, 200)), np.zeros(200, dtype=int))
    >>> bool(found.p_value(sparse.csr_matrix([[3.0, 3.0, 9.0]]), np.zeros(1))[0] < 0.05)
    True
    """

    shapes: LabelShapes
    usual: np.ndarray
    calibration: SupportCalibration

    def p_value(self, counts: sparse.csr_matrix, log_depth: np.ndarray) -> np.ndarray:
        """Return the share of labelled cells of the same depth that are at least as outlying."""
        labels, scores = _scores(self.shapes, counts)
        return self.calibration.p_value(_cell_scores(scores - self.usual[labels], log_depth))


def fit_novelty(
    copies: Sequence[sparse.csr_matrix], log_depths: np.ndarray, codes: np.ndarray
) -> NoveltyTest:
    """Fit a test for cells that resemble no label, and calibrate it with 5 folds of labelled cells.

    Two scores are combined: the distance to the likeliest label in 20 components, and the excess of
    the 30 features that exceed the label's means most. A type that the reference lacks has marker
    genes that hardly vary in the reference, and that the components miss. The median score of the
    likeliest label is subtracted, because types differ in depth.

    Parameters
    ----------
    copies
        Log counts of labelled cells, each ``(n_cells, n_features)``, not negative. The first has all
        molecules. In each further copy, more molecules were removed at random.
    log_depths
        Log of the total count of the cells in each copy, ``(n_copies, n_cells)``.
    codes
        Number of each cell's label, ``(n_cells,)``.

    Returns
    -------
    The test, for new cells of any depth.

    References
    ----------
    Bates et al. (2023), Testing for outliers with conformal p-values. Lee et al. (2018), A simple
    unified framework for detecting out-of-distribution samples and adversarial attacks.

    Examples
    --------
    >>> import numpy as np
    >>> from scipy import sparse
    >>> from betavi.diagnostics import fit_novelty
    >>> counts = sparse.csr_matrix(np.random.default_rng(0).poisson(1.0, (100, 5)).astype(float))
    >>> found = fit_novelty([counts], np.zeros((1, 100)), np.repeat([0, 1], 50))
    >>> found.p_value(counts[:2], np.zeros(2)).shape
    (2,)
    """
    folds = folds_of(codes)
    labels = np.zeros(log_depths.shape, dtype=int)
    scores = np.zeros((*log_depths.shape, 2))
    for fold in range(folds.max() + 1):
        # with a single fold, its cells are all cells
        others = np.flatnonzero(folds != fold) if folds.any() else np.arange(len(codes))
        mine, shapes = np.flatnonzero(folds == fold), _shapes_of(copies, codes, others)
        for number, copy in enumerate(copies):
            labels[number, mine], scores[number, mine] = _scores(shapes, copy[mine])
    usual = _medians(scores[0], labels[0], codes.max() + 1)
    calibration = SupportCalibration(_cell_scores(scores - usual[labels], log_depths))
    return NoveltyTest(_shapes_of(copies, codes, np.arange(len(codes))), usual, calibration)


def _shapes_of(
    copies: Sequence[sparse.csr_matrix], codes: np.ndarray, cells: np.ndarray
) -> LabelShapes:
    """Estimate from the first copies, so that depth counts as variation within a label."""
    some = [copy[cells] for copy in copies[:N_FITTED]]
    return fit_shapes(sparse.csr_matrix(sparse.vstack(some)), np.tile(codes[cells], len(some)))


def _scores(shapes: LabelShapes, counts: sparse.csr_matrix) -> tuple[np.ndarray, np.ndarray]:
    """Return the likeliest labels, and logarithms of both scores, ``(n_cells, 2)``."""
    labels, distance = shapes.nearest(counts)
    scores = np.stack([distance, shapes.excess(counts)], axis=1)
    return labels, np.log(np.maximum(scores, SMALLEST))


def _medians(scores: np.ndarray, labels: np.ndarray, n_labels: int) -> np.ndarray:
    """Return the median scores of each label. Few cells are pooled with all cells."""
    overall = np.median(scores, axis=0)
    found = np.tile(overall, (n_labels, 1))
    for label, size in zip(*np.unique(labels, return_counts=True), strict=True):
        own = np.median(scores[labels == label], axis=0)
        found[label] = (size * own + N_OVERALL * overall) / (size + N_OVERALL)
    return found


def _cell_scores(scores: np.ndarray, log_depth: np.ndarray) -> CellScores:
    return CellScores(-scores[..., 0], scores[..., 1], log_depth)
