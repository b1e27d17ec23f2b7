from __future__ import annotations

import numpy as np
import pytest
from scipy import integrate, stats
from sklearn.neighbors import KNeighborsClassifier

from betavi.diagnostics import (
    active_dimensions,
    dimension_information,
    label_agreement,
    mutual_information,
)


def channel(signal, noise, n_cells=2000):
    """Normal signals in normal noise: the information is log(1 + signal / noise) / 2."""
    loc = np.random.default_rng(3).normal(size=(n_cells, len(signal))) * np.sqrt(signal)
    return loc, np.sqrt(np.tile(np.asarray(noise, dtype=float), (n_cells, 1)))


def test_information_of_a_gaussian_channel():
    signal, noise = np.array([4.0, 1.0, 0.0]), np.array([1.0, 2.0, 1.0])
    loc, scale = channel(signal, noise)
    expected = np.log1p(signal / noise) / 2
    np.testing.assert_allclose(dimension_information(loc, scale), expected, atol=0.03)
    assert mutual_information(loc, scale) == pytest.approx(expected.sum(), abs=0.06)


def test_information_does_not_depend_on_units_and_cells_bound_it():
    loc, scale = channel([4.0, 1.0], [1.0, 1.0])
    units = np.array([100.0, 0.01])
    assert mutual_information(loc * units, scale * units) == pytest.approx(
        mutual_information(loc, scale)
    )
    np.testing.assert_allclose(
        dimension_information(loc * units, scale * units), dimension_information(loc, scale)
    )
    assert mutual_information(*channel([1e6], [1e-6], 50)) == pytest.approx(np.log(50), rel=1e-3)


def test_information_of_two_clusters_by_integration():
    loc = np.repeat([[-1.0], [1.0]], 500, axis=0)
    grid = np.linspace(-8, 8, 8001)
    q = stats.norm.pdf(grid, 1, 0.8)
    mixture = (q + stats.norm.pdf(grid, -1, 0.8)) / 2
    expected = integrate.simpson(q * np.log(q / mixture), x=grid)
    found = np.mean([mutual_information(loc, np.full_like(loc, 0.8), seed) for seed in range(20)])
    assert found == pytest.approx(expected, abs=0.01)


def test_a_collapsed_dimension_is_not_active_however_noise_moves_its_mean():
    rng = np.random.default_rng(0)
    loc = np.column_stack([rng.normal(size=500), rng.normal(scale=0.12, size=500)])
    # Burda's rule of a variance above 0.01 would count the second as well
    assert loc[:, 1].var() > 0.01
    assert active_dimensions(loc, np.column_stack([np.full(500, 0.3), np.full(500, 0.99)])) == 1


def test_label_agreement_is_that_of_neighbours():
    rng = np.random.default_rng(0)
    labels = np.repeat(["a", "b", "c"], [200, 100, 5])
    centre = {"a": 0.0, "b": 3.0, "c": 50.0}
    latent = np.array([[centre[label]] for label in labels]) + rng.normal(size=(305, 1))
    agreement = label_agreement(latent, labels)
    # the five of the rare type are each other's neighbours, which is all that they could be
    assert agreement["c"] == 1.0
    assert 0.8 < agreement["b"] < 1
    probability = KNeighborsClassifier(15).fit(latent, labels).predict_proba(latent)[:200, 0]
    assert agreement["a"] == pytest.approx(probability.mean(), abs=0.02)
    shuffled = label_agreement(latent, rng.permutation(labels))
    assert all(shuffled[label] < agreement[label] for label in "abc")


def test_a_type_of_one_cell_has_no_agreement():
    assert label_agreement(np.zeros((3, 1)), np.array(["a", "a", "b"])).keys() == {"a"}


def test_one_cell_has_no_neighbours():
    assert label_agreement(np.zeros((1, 2)), np.array(["a"])) == {}
    assert label_agreement(np.zeros((0, 2)), np.array([], dtype=str)) == {}
