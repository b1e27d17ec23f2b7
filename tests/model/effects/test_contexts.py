"""Effects in contexts where they were not measured."""

from __future__ import annotations

import numpy as np
import pytest

from betavi.datasets import EffectDistribution
from betavi.model.effects.contexts import in_context, remaining, similarity
from betavi.nn.effects import BASE, DEVIATION
from tests.model.effects.screens import fitted, screen, without


@pytest.fixture(scope="module")
def estimate():
    """Effects of a screen in which P0 lacks the first of three contexts."""
    effects = EffectDistribution(context_sd=0.5, share_affected=0.3)
    adata = screen(3000, n_genes=80, n_combinations=0, n_contexts=3, effects=effects)
    lacks = (adata.obs["perturbation"] == "P0") & (adata.obs["context"] == "context_0")
    model = fitted(without(adata, lacks), keys={"context_key": "context"})
    return model.module.stored_estimate()


def row_of(estimate, part, context):
    return estimate.design.row([part], None, context)


def deviations(estimate):
    columns = np.flatnonzero(estimate.kinds[estimate.kinds != BASE] == DEVIATION)
    return columns.reshape(len(estimate.bases), -1)


def test_measured_contexts_keep_their_deviation(estimate):
    row = row_of(estimate, 0, 1)
    found = in_context(estimate, row, [0], 1)
    np.testing.assert_array_equal(found.row, row)
    assert found.unmeasured == []
    assert found.row is not row


def test_other_contexts_share_theirs(estimate):
    row = row_of(estimate, 0, 0)
    before = row.copy()
    found = in_context(estimate, row, [0], 0)
    np.testing.assert_array_equal(row, before)
    weights = found.row[deviations(estimate)[1:, 0]]
    assert weights.sum() == pytest.approx(1)
    assert (weights > 0).all()
    (factor,) = found.unmeasured
    assert 0 < factor <= 1


def test_a_half_dose_has_half_of_the_deviation(estimate):
    row = 0.5 * row_of(estimate, 0, 0)
    found, full = (in_context(estimate, each, [0], 0) for each in (row, 2 * row))
    np.testing.assert_allclose(2 * found.row, full.row)
    np.testing.assert_allclose(2 * np.array(found.unmeasured), full.unmeasured)


def test_every_perturbation_of_a_combination_is_transferred(estimate):
    row = estimate.design.row([0, 1], None, 0)
    found = in_context(estimate, row, [0, 1], 0)
    assert len(found.unmeasured) == 1
    np.testing.assert_array_equal(
        found.row[deviations(estimate)[:, 1]], row[deviations(estimate)[:, 1]]
    )


def test_similar_contexts_have_larger_weights(estimate):
    others = np.array([0, 1, 2])
    weights = similarity(estimate, 1, others)
    assert weights.sum() == pytest.approx(1)
    assert weights.argmax() == 1


def test_the_rest_is_what_other_contexts_do_not_explain(estimate):
    contexts = np.array([0, 1, 2])
    same = np.ones((3, 10))
    assert remaining(estimate, same, contexts) == pytest.approx(0, abs=1e-6)
    opposite = np.array([[1.0], [-1.0], [1.0]]) * np.ones((3, 10))
    assert remaining(estimate, opposite, contexts) == 1
    assert remaining(estimate, same[:1], contexts[:1]) == 1
    assert remaining(estimate, 0 * same, contexts) == 1


def test_models_without_contexts_have_nothing_to_transfer():
    model = fitted(screen(400, n_genes=20))
    estimate = model.module.stored_estimate()
    row = row_of(estimate, 0, 0)
    found = in_context(estimate, row, [0], 0)
    np.testing.assert_array_equal(found.row, row)
    assert found.unmeasured == []
