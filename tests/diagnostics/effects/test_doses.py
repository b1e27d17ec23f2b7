"""Posterior of dose curves on a grid that is refined."""

from __future__ import annotations

import numpy as np
import pytest

from betavi.diagnostics.effects.doses import (
    N_EC50,
    N_SLOPES,
    OUTSIDE,
    SLOPES,
    DoseCurves,
    curve_weights,
    hill,
)

DOSES = np.array([0.1, 0.3, 1, 3, 10])
SCALES = np.array([0.0025, 0.8])


def posterior(rng, log_ec50, slope, information, base_sd=0.0, known_base_sd=0.0, n_rounds=4):
    """Return curves fitted to the responses of genes with effects, and errors of their control."""
    effects = rng.normal(0, 0.8, 100)
    curve = hill(DOSES, log_ec50, np.array(slope))[:, None]
    noise = rng.normal(size=(5, 100)) / np.sqrt(information)
    responses = curve * effects + noise + base_sd * rng.normal(size=100)
    curves = DoseCurves.start([DOSES])
    for step in range(n_rounds):
        curves = curves.refined([DOSES]) if step else curves
        levels = hill(DOSES, *(each[:, None] for each in curves.points(0)))
        found = curve_weights(
            levels, responses, np.full((5, 100), information), np.full(100, known_base_sd**2),
            np.array([0.1, 0.9]), SCALES,
        )  # fmt: skip
        curves = curves._replace(weights=found.reshape(1, N_EC50, N_SLOPES))
    return curves


@pytest.mark.parametrize("information", [20.0, 1000.0, 1e5])
def test_intervals_of_half_effective_doses_are_calibrated(information):
    rng, inside, z = np.random.default_rng(0), [], []
    for _ in range(60):
        log_ec50, slope = np.log(rng.uniform(0.3, 4)), rng.uniform(0.7, 2)
        found = posterior(rng, log_ec50, slope, information)
        lower, upper = found.quantile(0.05)[0], found.quantile(0.95)[0]
        inside.append(lower < log_ec50 < upper)
        z.append((found.means()[0][0] - log_ec50) / ((upper - lower) / 3.29))
    assert 0.8 <= np.mean(inside) <= 0.98
    assert np.std(z) == pytest.approx(1, abs=0.25)


@pytest.mark.parametrize(("known", "expected"), [(0.0, False), (0.1, True)])
def test_the_error_of_the_control_is_part_of_the_interval(known, expected):
    rng, inside = np.random.default_rng(1), []
    for _ in range(60):
        log_ec50 = np.log(rng.uniform(0.3, 4))
        found = posterior(rng, log_ec50, 1.0, 1000.0, base_sd=0.1, known_base_sd=known)
        inside.append(found.quantile(0.05)[0] < log_ec50 < found.quantile(0.95)[0])
    assert (np.mean(inside) > 0.8) == expected


def test_a_precise_posterior_has_a_fine_grid_and_a_flat_one_all_of_it():
    rng = np.random.default_rng(2)
    precise = posterior(rng, 0.0, 1.0, 1e5)
    assert np.diff(precise.log_ec50).max() < 0.01
    assert precise.means()[1][0] == pytest.approx(1, abs=0.05)
    flat = DoseCurves.start([DOSES, 10 * DOSES]).refined([DOSES, 10 * DOSES])
    # each perturbation has the range of its own doses
    ends = np.log([[0.1 / OUTSIDE, 10 * OUTSIDE], [1 / OUTSIDE, 100 * OUTSIDE]])
    np.testing.assert_allclose(flat.log_ec50[:, [0, -1]], ends)
    np.testing.assert_allclose(flat.log_slope[:, [0, -1]], np.tile(np.log(SLOPES), (2, 1)))
    np.testing.assert_allclose(flat.weights.sum(axis=(1, 2)), 1)


def test_points_have_the_order_of_the_weights():
    curves = DoseCurves.start([DOSES])
    log_ec50, slope = curves.points(0)
    weights = np.random.default_rng(3).dirichlet(np.ones(N_EC50 * N_SLOPES))
    curves = curves._replace(weights=weights.reshape(1, N_EC50, N_SLOPES))
    found, found_slope = curves.means()
    assert found[0] == pytest.approx(weights @ log_ec50)
    assert np.log(found_slope[0]) == pytest.approx(weights @ np.log(slope))
