"""Scores of cells that resemble no label agree with their definitions, and p-values are calibrated."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse
from scipy.spatial.distance import mahalanobis

from betavi.diagnostics import fit_novelty, thin
from betavi.diagnostics.novelty import N_PRIOR, N_WORST, fit_shapes

N_GENES = 80


def cells(n, n_labels, seed, marker=False):
    """Return counts and labels. With ``marker``, five genes that are silent in the others rise."""
    rng = np.random.default_rng(seed)
    rates = np.random.default_rng(7).gamma(0.5, 4.0, (n_labels, N_GENES))
    rates[:, :5] = 4.0 if marker else 0.02
    codes = rng.integers(0, n_labels, n)
    return sparse.csr_matrix(rng.poisson(rates[codes]).astype(float)), codes


def test_the_distance_to_a_single_label_is_the_mahalanobis_distance():
    values = np.abs(np.random.default_rng(0).normal(size=(200, 4)))
    found = fit_shapes(sparse.csr_matrix(values), np.zeros(200, dtype=int))
    labels, distance = found.nearest(sparse.csr_matrix(values[:20]))
    mean, inverse = values.mean(axis=0), np.linalg.inv(np.cov(values.T, bias=True))
    expected = [mahalanobis(value, mean, inverse) ** 2 for value in values[:20]]
    np.testing.assert_allclose(distance, expected, rtol=1e-3)
    assert (labels == 0).all()


def test_the_excess_is_the_sum_of_the_largest_squares_of_the_best_label():
    counts, codes = cells(300, 3, 0)
    logs, dense = counts.log1p(), np.log1p(counts.toarray())
    sums, sizes = [], np.bincount(codes)[:, None]
    own = np.stack([dense[codes == code].var(axis=0) for code in range(3)])
    pooled = (own * sizes).sum(axis=0) / 300
    for code in range(3):
        variance = (sizes[code] * own[code] + N_PRIOR * pooled) / (sizes[code] + N_PRIOR)
        variance += 0.1 * np.median(pooled) + 1e-3
        above = np.maximum(dense - dense[codes == code].mean(axis=0), 0) ** 2 / variance
        sums.append(np.sort(above, axis=1)[:, -N_WORST:].sum(axis=1))
    np.testing.assert_allclose(fit_shapes(logs, codes).excess(logs), np.min(sums, axis=0))


def fitted(counts, codes, shares=(1.0, 0.5, 0.25)):
    copies = [counts if share == 1 else thin(counts, 1 - share).kept for share in shares]
    return fit_novelty([copy.log1p() for copy in copies], depths(copies), codes)


def depths(copies):
    return np.stack([np.log(np.maximum(copy.sum(axis=1).A1, 1)) for copy in copies])


def p_value(found, counts):
    return found.p_value(counts.log1p(), depths([counts])[0])


@pytest.mark.parametrize("share", [1.0, 0.5])
def test_p_values_of_like_cells_hold_at_every_depth(share):
    called = []
    for seed in range(5):
        found = fitted(*cells(500, 3, seed))
        counts, _ = cells(1000, 3, 100 + seed)
        counts = counts if share == 1 else thin(counts, 1 - share).kept
        called.append([(p_value(found, counts) < level).mean() for level in (0.05, 0.2)])
    np.testing.assert_allclose(np.mean(called, axis=0), [0.05, 0.2], atol=0.03)


def test_genes_that_are_silent_in_the_reference_make_a_cell_unknown():
    found = fitted(*cells(500, 3, 0))
    assert (p_value(found, cells(200, 3, 1, marker=True)[0]) < 0.05).mean() > 0.95


def test_a_label_between_two_others_is_unknown():
    counts, codes = cells(900, 3, 0)
    found = fitted(counts[codes != 2], codes[codes != 2])
    new, labels = cells(600, 3, 1)
    is_unknown = p_value(found, new) < 0.05
    assert is_unknown[labels == 2].mean() > 0.95
    assert is_unknown[labels != 2].mean() < 0.1


@pytest.mark.parametrize("sizes", [(2, 2), (40, 2), (1, 50, 3), (30, 0, 30), (1,), (200,)])
def test_few_cells_of_a_label(sizes):
    codes = np.repeat(np.arange(len(sizes)), sizes)
    counts, _ = cells(len(codes), 1, 0)
    p = p_value(fitted(counts, codes), cells(20, 1, 1)[0])
    assert (p >= 1 / (1 + len(codes)) - 1e-12).all()
    assert (p <= 1).all()


def test_one_feature_and_empty_cells():
    counts = sparse.csr_matrix(np.random.default_rng(0).poisson(3.0, (50, 1)).astype(float))
    found = fitted(counts, np.repeat([0, 1], 25))
    assert np.isfinite(p_value(found, sparse.csr_matrix((3, 1)))).all()
    assert found.shapes.excess(sparse.csr_matrix((0, 1))).shape == (0,)
