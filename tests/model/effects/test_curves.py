"""Uncertainty of dose curves in predictions."""

from __future__ import annotations

import numpy as np
import pytest

from betavi.datasets import EffectDistribution
from betavi.model.effects.curves import curve_factors
from betavi.nn.effects import BASE, INTERACTION
from tests.model.effects.screens import fitted, screen

DOSES = (0.1, 1, 10)


@pytest.fixture(scope="module")
def estimate():
    effects = EffectDistribution(context_sd=0.2)
    adata = screen(1500, n_genes=60, n_contexts=2, doses=DOSES, effects=effects)
    keys = {"dose_key": "dose", "context_key": "context"}
    return fitted(adata, keys=keys).module.stored_estimate()


def factors(estimate, parts, doses, n_draws=300):
    return curve_factors(estimate, parts, np.array(doses), np.random.default_rng(0), n_draws)


def test_only_effects_of_the_perturbations_change(estimate):
    found = factors(estimate, [1], [1.0])
    kinds = estimate.kinds[estimate.kinds != BASE]
    assert found.shape == (300, len(kinds))
    row = estimate.design.row([1], [1.0], 0)
    changed = found.std(axis=0) > 0
    assert changed[row != 0].all()
    own = found[:, 1]
    np.testing.assert_array_equal(
        found[:, np.flatnonzero(row)], np.tile(own[:, None], int((row != 0).sum()))
    )


def test_pairs_have_the_product(estimate):
    found = factors(estimate, [0, 1], [1.0, 10.0])
    pairs = estimate.design.pairs.numpy()
    kinds = estimate.kinds[estimate.kinds != BASE]
    of_pairs = found[:, kinds == INTERACTION]
    np.testing.assert_allclose(of_pairs, found[:, pairs[:, 0]] * found[:, pairs[:, 1]])


def test_doses_outside_are_less_certain_than_measured_ones(estimate):
    inside, outside = (factors(estimate, [0], [dose])[:, 0].std() for dose in (10.0, 0.001))
    assert inside < outside
    assert abs(np.median(factors(estimate, [0], [10.0])[:, 0]) - 1) < 0.2
