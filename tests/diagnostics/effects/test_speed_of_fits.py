"""Shortcuts of the fits give the numbers of the plain formulas."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from scipy.special import logsumexp

from betavi.diagnostics.effects.doses import DoseCurves, curve_weights, hill
from betavi.diagnostics.effects.normal_equations import hessian_of, solve, without_shared_rows

BASE_ONLY = np.column_stack([np.ones(5), np.eye(5)[:, 1:]])
PAIRS = np.array(
    [[1, 0, 0, 0, 0], [1, 0.5, 0, 0, 0], [1, 0, 1, 0, 0], [1, 0.5, 1, 0.5, 0], [1, 0, 0, 0, 2]]
)


@pytest.mark.parametrize(
    ("rows", "n_apart"), [(BASE_ONLY, 4), (PAIRS, 2), (np.ones((3, 2)), 1), (np.eye(3), 3)]
)
def test_eliminated_columns_have_the_solution_of_all_columns(rows, n_apart):
    rng = np.random.default_rng(0)
    rows = rows.astype(float)
    weights = rng.gamma(1, 100, (len(rows), 7))
    precision, score = rng.gamma(1, 1, (2, rows.shape[1], 7))
    mean, variance = solve(rows, weights, precision, score)
    inverse = np.linalg.inv(hessian_of(rows, weights, precision))
    np.testing.assert_allclose(mean, np.einsum("gkl,lg->kg", inverse, score), rtol=1e-9)
    np.testing.assert_allclose(variance, np.diagonal(inverse, axis1=1, axis2=2).T, rtol=1e-9)
    apart = without_shared_rows(rows)
    assert apart.sum() >= n_apart
    assert ((rows[:, apart] != 0).sum(axis=1) <= 1).all()


@pytest.mark.parametrize("base_variance", [0.0, 0.5])
@pytest.mark.parametrize("information", [0.1, 10.0, 1e4])
@pytest.mark.parametrize("mixture", [[0.5, 0.3, 0.2], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
def test_weights_of_curves(information, mixture, base_variance):
    """Responses of a gene are normal: noise, a shared error of the base, and an effect on the curve."""
    rng = np.random.default_rng(0)
    doses, scales = np.array([0.1, 1, 10]), np.array([0.01, 0.2, 1.6])
    log_ec50, slope = DoseCurves.start([doses, 10 * doses]).points(0)
    levels = hill(doses[None], log_ec50[::50, None], slope[::50, None])
    responses = rng.normal(size=60) * hill(doses[:, None], np.array(0.3), np.array(1.0))
    found = curve_weights(
        levels, responses, np.full((3, 60), information), np.full(60, base_variance),
        np.array(mixture), scales,
    )  # fmt: skip
    base = np.eye(3) / information + base_variance
    log_weights = [
        logsumexp(
            [stats.multivariate_normal.logpdf(responses.T, cov=base + np.outer(a, a) * s**2) for s in scales],
            axis=0, b=np.maximum(mixture, 1e-300)[:, None],
        ).sum()
        for a in levels
    ]  # fmt: skip
    expected = np.exp(log_weights - np.max(log_weights))
    np.testing.assert_allclose(found, expected / expected.sum(), rtol=1e-5, atol=1e-12)
