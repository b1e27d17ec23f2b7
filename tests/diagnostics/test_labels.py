"""Probabilities and sets of labels hold on new cells, and combine over assays."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import sparse, special
from sklearn.linear_model import LogisticRegression
from torchmetrics.functional.classification import multiclass_calibration_error

from betavi.diagnostics import calibrate_labels, fit_classifier, log_shares


def drawn(n, temperature, seed):
    """Return scores that are ``temperature`` times too sure, and labels drawn from the truth."""
    rng = np.random.default_rng(seed)
    scores = 2 * rng.normal(size=(n, 4))
    uniform = rng.random((n, 1))
    codes = (special.softmax(scores, axis=1).cumsum(axis=1) < uniform).sum(axis=1)
    return temperature * scores, codes


@pytest.mark.parametrize("temperature", [0.3, 1.0, 4.0])
def test_overconfident_scores_become_probabilities(temperature):
    found = calibrate_labels(*drawn(3000, temperature, 0), level=0.9)
    assert found.temperature == pytest.approx(temperature, rel=0.1)
    scores, codes = drawn(20_000, temperature, 1)
    error = multiclass_calibration_error(
        torch.tensor(found.probabilities(scores)), torch.tensor(codes), 4, n_bins=15
    )
    assert float(error) < 0.02


@pytest.mark.parametrize("level", [0.5, 0.9, 0.99])
def test_sets_have_the_label_as_often_as_asked(level):
    shares = []
    for seed in range(10):
        found = calibrate_labels(*drawn(300, 2.0, seed), level=level)
        scores, codes = drawn(2000, 2.0, 100 + seed)
        sets = found.sets(found.probabilities(scores))
        shares.append(sets[np.arange(2000), codes].mean())
    # the most probable label is in every set, so that sets hold more often at a low level
    assert np.mean(shares) > level - 0.02
    assert np.mean(shares) < max(level, 0.8) + 0.03


def test_a_higher_level_gives_larger_sets():
    scores, codes = drawn(1000, 1.0, 0)
    sizes = []
    for level in (0.5, 0.8, 0.95, 0.99):
        found = calibrate_labels(scores, codes, level)
        sizes.append(found.sets(found.probabilities(scores)).sum())
    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[-1]


@pytest.mark.parametrize("level", [5e-324, 1e-6, 1 - 1e-12])
def test_extreme_levels_give_one_label_or_all(level):
    scores, codes = drawn(100, 1.0, 0)
    found = calibrate_labels(scores, codes, level)
    sizes = found.sets(found.probabilities(scores)).sum(axis=1)
    assert (sizes == (4 if level > 0.5 else 1)).mean() > 0.9


def test_cells_are_predicted_by_a_classifier_that_has_not_seen_them():
    rng = np.random.default_rng(0)
    counts = sparse.csr_matrix(rng.normal(size=(200, 300)))
    codes = rng.integers(0, 2, 200)
    found = fit_classifier(counts, codes, 2)
    # labels are random: with its own label, the classifier would be right every time
    assert (found.crossed.argmax(axis=1) == codes).mean() < 0.65
    assert (found.evidence(counts).argmax(axis=1) == codes).mean() > 0.95


def test_the_penalty_is_the_one_with_the_lowest_loss_of_the_first_fold():
    rng = np.random.default_rng(1)
    codes = rng.integers(0, 3, 600)
    counts = sparse.csr_matrix(np.eye(3)[codes] + 0.8 * rng.normal(size=(600, 3)))
    found = fit_classifier(counts, codes, 3)
    expected = LogisticRegression(C=found.fitted.C, max_iter=300).fit(counts, codes)
    np.testing.assert_allclose(
        found.evidence(counts) + log_shares(codes, 3), expected.predict_log_proba(counts), atol=1e-6
    )


def test_a_rare_label_is_kept():
    codes = np.repeat([0, 1, 2], [50, 50, 2])
    counts = sparse.csr_matrix(np.eye(3)[codes])
    found = fit_classifier(counts, codes, 3)
    assert np.isfinite(found.crossed).all()
    assert found.evidence(counts).argmax(axis=1)[-1] == 2


@pytest.mark.parametrize("sizes", [(2, 2), (3, 3), (50, 1), (1, 50, 3)])
def test_few_cells_of_a_label(sizes):
    codes = np.repeat(np.arange(len(sizes)), sizes)
    counts = sparse.csr_matrix(np.eye(len(sizes))[codes])
    found = fit_classifier(counts, codes, len(sizes))
    assert np.isfinite(found.crossed).all()
    assert (found.evidence(counts).argmax(axis=1) == codes).mean() > 0.9


def test_a_label_that_a_classifier_has_not_seen_is_neutral():
    codes = np.repeat([0, 2], 30)
    counts = sparse.csr_matrix(np.eye(3)[codes])
    found = fit_classifier(counts, codes, 3)
    assert (found.evidence(counts)[:, 1] == 0).all()
    assert (found.crossed[:, 1] == 0).all()


def test_evidence_of_assays_adds_up_as_bayes_rule_says():
    # two independent assays with two values each, given two labels
    rng = np.random.default_rng(0)
    codes = (rng.random(40_000) < 0.3).astype(int)
    shares = np.array([[0.2, 0.5], [0.9, 0.4]])
    assays = [(rng.random(40_000) < share[codes]).astype(float) for share in shares]
    parts = [sparse.csr_matrix(assay[:, None]) for assay in assays]
    found = [fit_classifier(part, codes, 2) for part in parts]
    one = sparse.csr_matrix([[1.0]])
    scores = sum(classifier.evidence(one) for classifier in found) + log_shares(codes, 2)
    joint = shares.prod(axis=0) * np.array([0.7, 0.3])
    np.testing.assert_allclose(special.softmax(scores, axis=1)[0], joint / joint.sum(), atol=0.01)
