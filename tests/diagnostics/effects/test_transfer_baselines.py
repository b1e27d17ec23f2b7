"""Predictions in other contexts and at other doses, on numbers made by hand."""

from __future__ import annotations

import numpy as np
import pytest

from betavi.diagnostics.effects.transfer import (
    CONTEXT_BASELINES,
    DOSE_BASELINES,
    interpolated,
    mean_of_contexts,
    nearest_context,
    nearest_dose,
    scaled_mean,
)

CONTROL = np.array([1.0, 1.0])
OTHERS = [
    (np.array([1.0, 2.0]), np.array([3.0, 2.0])),
    (np.array([5.0, 5.0]), np.array([9.0, 7.0])),
]
DOSES = {0.1: np.array([0.0]), 1.0: np.array([1.0]), 10.0: np.array([5.0])}


def test_contexts_made_by_hand():
    np.testing.assert_allclose(mean_of_contexts(CONTROL, OTHERS), [4, 2])
    np.testing.assert_allclose(nearest_context(CONTROL, OTHERS), [3, 1])
    # the changes are (2, 0) and (4, 2), and each predicts the other: 16 / (20 + 4)
    factor = 2 / 3
    np.testing.assert_allclose(scaled_mean(CONTROL, OTHERS), 1 + factor * np.array([3, 1]))


def test_the_factor_is_one_for_equal_changes_and_small_for_unrelated_ones():
    rng = np.random.default_rng(0)
    change, bases = rng.normal(size=200), rng.normal(size=(5, 200))
    equal = [(base, base + change) for base in bases]
    np.testing.assert_allclose(scaled_mean(bases[0], equal), bases[0] + change)
    unrelated = [(base, base + rng.normal(size=200)) for base in bases]
    errors = [each(bases[0], unrelated) - bases[0] for each in (scaled_mean, mean_of_contexts)]
    assert np.linalg.norm(errors[0]) < 0.3 * np.linalg.norm(errors[1])


@pytest.mark.parametrize("name", CONTEXT_BASELINES)
def test_one_other_context_and_no_change(name):
    baseline = CONTEXT_BASELINES[name]
    alone = baseline(CONTROL, OTHERS[:1])
    np.testing.assert_allclose(alone, [1, 1] if name == "no change" else [3, 1])
    same = [(before, before) for before, _ in OTHERS]
    np.testing.assert_allclose(baseline(CONTROL, same), CONTROL)


@pytest.mark.parametrize(
    ("dose", "nearest", "between"),
    [(0.01, 0, 0), (0.2, 0, np.log10(2)), (0.5, 1, np.log10(5)), (5, 5, 1 + 4 * np.log10(5)),
     (100, 5, 5)],
)  # fmt: skip
def test_doses_are_compared_on_a_log_scale(dose, nearest, between):
    assert nearest_dose(CONTROL, dose, DOSES).item() == nearest
    assert interpolated(CONTROL, dose, DOSES).item() == pytest.approx(between)


@pytest.mark.parametrize("name", DOSE_BASELINES)
def test_the_order_of_doses_does_not_matter(name):
    baseline = DOSE_BASELINES[name]
    order = dict(sorted(DOSES.items(), reverse=True))
    np.testing.assert_array_equal(baseline(CONTROL, 2.0, order), baseline(CONTROL, 2.0, DOSES))


def test_doses_of_combinations_are_compared_together():
    others = {(1.0, 1.0): np.array([1.0]), (1.0, 9.0): np.array([3.0]), (9.0, 1.0): np.array([7.0])}
    assert nearest_dose(CONTROL, (1.0, 8.0), others).item() == 3
    assert interpolated(CONTROL, (1.0, 3.0), others).item() == pytest.approx(2)
