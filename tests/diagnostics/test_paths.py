"""Paths round a hole, and holes where there are some."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import approx_fprime

from betavi.diagnostics import along_density, find_holes, fit_density, genes_on_path, straight
from betavi.diagnostics.density import LatentDensity
from betavi.diagnostics.paths import _Cost, resampled
from tests.conftest import slow_where


def ring(n_cells=3000, n_extra=0, seed=0):
    rng = np.random.default_rng(seed)
    angle = rng.uniform(0, 2 * np.pi, n_cells)
    flat = np.column_stack([np.cos(angle), np.sin(angle)]) * rng.normal(3, 0.25, (n_cells, 1))
    return np.hstack([flat, rng.normal(scale=0.25, size=(n_cells, n_extra))])


def fork(n_cells=3000, seed=0):
    """A stem and two arms, between which no cell is."""
    rng = np.random.default_rng(seed)
    ends = np.array([[0.0, -4.0], [4.0, 4.0], [-4.0, 4.0]])[rng.integers(3, size=n_cells)]
    return rng.uniform(size=(n_cells, 1)) * ends + rng.normal(scale=0.25, size=(n_cells, 2))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_a_hole_is_found_among_few_cells(seed):
    """Where a pair of a cell and itself is likely among those that directions are taken from."""
    found = find_holes(ring(300, seed=seed), seed=seed)
    assert len(found.centres) == 1
    assert np.linalg.norm(found.centres[0]) < 1.2


@pytest.mark.slow
@pytest.mark.parametrize("n_extra", [0, 3])
def test_a_ring_has_one_hole_and_a_path_goes_round(n_extra):
    positions = ring(n_extra=n_extra)
    density = fit_density(positions)
    start, end = np.zeros((2, 2 + n_extra))
    start[0], end[0] = -3.0, 3.0
    path = along_density(start, end, 25, density, positions)
    np.testing.assert_allclose(path[[0, -1]], [start, end])
    assert np.linalg.norm(path[:, :2], axis=1).min() > 2.3
    steps = np.linalg.norm(np.diff(path, axis=0), axis=1)
    assert steps.max() < 1.1 * steps.min()
    assert density.log_prob(path).min() > density.log_prob(straight(start, end, 25)).min() + 5
    found = find_holes(positions)
    assert len(found.centres) == 1
    assert np.linalg.norm(found.centres[0]) < 1.2
    assert found.depth[0] > (0.2 if n_extra == 0 else 0.05)
    assert found.radius[0] > 1.5


@pytest.mark.parametrize("seed", range(3))
def test_what_is_open_to_one_side_is_no_hole(seed):
    assert len(find_holes(fork(seed=seed), seed=seed).centres) == 0


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("n_latent", [2, 3])
def test_a_ball_of_cells_that_was_removed_is_found(n_latent, seed):
    """Even densities of cells, so that the planted hole is the only one."""
    rng = np.random.default_rng(seed)
    positions = rng.uniform(-1, 1, size=(2000, n_latent))
    centre, radius = rng.uniform(-0.3, 0.3, size=n_latent), 0.4
    found = find_holes(positions[np.linalg.norm(positions - centre, axis=1) > radius], seed=seed)
    assert len(found.centres) == 1
    assert np.linalg.norm(found.centres[0] - centre) < 0.1
    assert found.radius[0] == pytest.approx(radius, rel=0.15)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    "kind", slow_where(["normal", "disc", "ten dimensions", "skewed"], {"ten dimensions"})
)
def test_no_hole_where_there_is_none(kind, seed):
    rng = np.random.default_rng(seed)
    if kind == "disc":
        angle, radius = rng.uniform(0, 2 * np.pi, 2000), np.sqrt(rng.uniform(size=2000))
        positions = radius[:, None] * np.column_stack([np.cos(angle), np.sin(angle)])
    elif kind == "skewed":
        positions = rng.gamma(2.0, size=(2000, 3))
    else:
        positions = rng.normal(size=(2000, 10 if kind == "ten dimensions" else 2))
    assert len(find_holes(positions, seed=seed).centres) == 0


@pytest.mark.slow
def test_dimensions_that_cells_do_not_differ_in_do_not_make_a_hole_cheaper():
    """Posteriors as wide as the prior, in which every cell is at the centre."""
    rng = np.random.default_rng(0)
    flat = ring(2000)
    nodes = np.hstack([flat, 0.05 * rng.normal(size=(2000, 6))])
    draws = np.hstack([flat, rng.normal(size=(2000, 6))])
    start, end = np.zeros((2, 8))
    start[0], end[0] = -3.0, 3.0
    path = along_density(start, end, 25, fit_density(draws), nodes)
    assert np.linalg.norm(path[:, :2], axis=1).min() > 2.0


@pytest.mark.slow
@pytest.mark.parametrize("n_islands", [2, 3])
def test_between_islands_is_a_hole_of_its_own(n_islands):
    rng = np.random.default_rng(0)
    places = 8 * np.array([[0.0, 0.0], [1.0, 0.0], [0.5, 0.9]])[:n_islands]
    positions = places[rng.integers(n_islands, size=2000)] + rng.normal(size=(2000, 2))
    found = find_holes(positions)
    # one between two islands; of three also one amid them, and others of the gaps
    assert n_islands - 1 <= len(found.centres) <= 2 * n_islands
    for centre in found.centres:
        assert np.linalg.norm(places - centre, axis=1).min() > 2.5
    for start, end in combinations(places, 2):
        assert np.linalg.norm(found.centres - (start + end) / 2, axis=1).min() < 2


def test_where_cells_are_everywhere_the_best_path_is_hardly_longer():
    positions = np.random.default_rng(0).normal(size=(2000, 4))
    start, end = np.full(4, -1.0), np.full(4, 1.0)
    path = along_density(start, end, 20, fit_density(positions), positions)
    assert np.linalg.norm(np.diff(path, axis=0), axis=1).sum() < 1.05 * np.linalg.norm(end - start)


def test_islands_are_connected_by_a_straight_line():
    rng = np.random.default_rng(0)
    positions = np.vstack([rng.normal(size=(200, 2)), rng.normal(size=(200, 2)) + 50])
    path = along_density(np.zeros(2), np.full(2, 50.0), 10, fit_density(positions), positions)
    assert np.isfinite(path).all()
    np.testing.assert_allclose(path[[0, -1]], [[0, 0], [50, 50]])


def test_the_gradient_of_the_energy_is_a_finite_difference():
    positions = ring(500)
    cost = _Cost(fit_density(positions), positions)
    points = np.array([[3.0, 0.0], [2.5, 1.0], [1.9, 1.8], [1.0, 2.9], [0.0, 3.0]])

    def energy(inner):
        return cost.energy(np.vstack([points[:1], inner.reshape(3, 2), points[-1:]]))[0]

    numeric = approx_fprime(points[1:-1].ravel(), energy, 1e-7)
    np.testing.assert_allclose(cost.energy(points)[1], numeric, rtol=1e-3, atol=1e-3)


def test_the_cost_is_the_distance_between_neighbours():
    """Cells in d dimensions at a density that is lower by a factor c^d are c times as far apart."""
    density = LatentDensity(np.ones(1), np.zeros((1, 3)), np.eye(3)[None], held_out=0.0)
    nodes = np.vstack([np.zeros(3), np.random.default_rng(0).normal(size=(200, 3))])
    cost = _Cost(density, nodes)
    positions = np.array([[0.0, 0, 0], [2, 0, 0], [0, 0, 3], [30, 0, 0]])
    apart = np.exp(np.square(positions).sum(axis=1) / 2 / 3)
    expected = np.minimum(apart, np.exp(10))
    np.testing.assert_allclose(cost.value(positions), expected)
    np.testing.assert_allclose(cost(positions)[0], expected)


def test_the_cost_of_a_path_is_the_sum_of_its_integrals():
    density = LatentDensity(np.ones(1), np.zeros((1, 2)), np.eye(2)[None], held_out=0.0)
    cost = _Cost(density, np.random.default_rng(0).normal(size=(500, 2)))
    corners = np.array([[-1.0, 0.5], [0.0, -0.5], [1.0, 1.0]])
    fine = resampled(corners, 4001)
    at_middle = cost.value((fine[1:] + fine[:-1]) / 2)
    expected = at_middle @ np.linalg.norm(np.diff(fine, axis=0), axis=1)
    assert cost.of_path(corners) == pytest.approx(expected, rel=1e-2)


@pytest.mark.parametrize("seed", range(3))
def test_no_path_costs_more_than_the_straight_line(seed):
    rng = np.random.default_rng(seed)
    positions = np.vstack([rng.uniform(-4, 4, size=(1000, 2)), rng.normal(size=(1000, 2)) * 0.4])
    density = fit_density(positions)
    start, end = np.array([-4.0, 1.0]), np.array([4.0, 1.0])
    path, line = along_density(start, end, 33, density, positions), straight(start, end, 33)
    cost = _Cost(density, positions)
    assert cost.of_path(path) <= cost.of_path(line)


def test_points_are_spread_evenly_along_a_polygon():
    corners = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 3.0]])
    np.testing.assert_allclose(resampled(corners, 5), [[0, 0], [1, 0], [1, 1], [1, 2], [1, 3]])


def test_genes_on_a_path():
    at = np.linspace(0, 1, 11)[:, None]
    genes = {
        "up late": 1 + 99 * (at > 0.65),
        "down early": 100 - 99 * (at > 0.15),
        "there and back": 1 + 99 * np.exp(-(((at - 0.5) / 0.1) ** 2)),
        "still": np.full_like(at, 50.0),
        "a little": 50 + 10 * at,
    }
    expression = np.hstack(list(genes.values()))
    table = genes_on_path(expression, 0.05 * expression, pd.Index(genes))
    assert table["direction"].tolist() == ["up", "down", "neither", "neither", "up"]
    assert table["is_switch"].tolist() == [True, True, False, False, False]
    # halfway between the steps that a jump is between
    assert table["switch_at"].iloc[:2].tolist() == pytest.approx([0.65, 0.15], abs=0.01)
    assert table.loc["there and back", "peak_at"] == pytest.approx(0.5)
    assert (table["log2_fold_change"] > 0).tolist() == [True, False, False, False, True]
    # what is uncertain by as much as it changes is no switch
    unsure = genes_on_path(expression, 5 * expression, pd.Index(genes))
    assert not unsure["is_switch"].any()


def test_the_width_of_a_switch_is_that_of_its_logistic_curve():
    at = np.linspace(0, 1, 201)
    steepness = np.array([20.0, 40.0, -80.0])
    logs = 6 / (1 + np.exp(-steepness * (at[:, None] - 0.4)))
    even = 6 * at[:, None]
    genes = ["a", "b", "down", "even"]
    # beside many silent genes the pseudocount, a share of the mean, is next to nothing
    silent = [f"silent {number}" for number in range(1000)]
    expression = np.hstack([np.exp2(np.hstack([logs, even])), np.zeros((201, 1000))])
    table = genes_on_path(expression, 0.01 * expression, pd.Index(genes + silent)).loc[genes]
    # a logistic curve is at a quarter and at three quarters log(3) / steepness from its middle
    expected = 2 * np.log(3) / np.abs(steepness)
    np.testing.assert_allclose(table["switch_width"][:3], expected, rtol=0.03)
    np.testing.assert_allclose(table["switch_at"][:3], 0.4, atol=0.01)
    assert table.loc["even", "switch_width"] == pytest.approx(0.5, abs=0.01)
    assert table["is_switch"].all()
