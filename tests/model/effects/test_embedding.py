"""Effects of perturbations that were not measured, from their coordinates."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from betavi.datasets import EffectDistribution
from tests.model.effects.screens import fitted, screen, true_change, without

NEW = ["P0", "P1", "P2", "P3"]


@pytest.fixture(scope="module")
def adata():
    effects = EffectDistribution(n_programs=4, share_affected=0.2)
    return screen(6000, n_perturbations=30, n_combinations=0, effects=effects, seed=1)


@pytest.fixture(scope="module")
def model(adata):
    return fitted(without(adata, adata.obs["perturbation"].isin(NEW)))


@pytest.fixture(scope="module")
def coordinates(adata):
    """Coordinates in which the effects are linear."""
    return adata.uns["truth"]["program_weights"].T


def errors(adata, found):
    """Return the squared error of the log fold changes over that of no change."""
    rows = zip(found.obs["perturbation"], found.layers["lfc"], strict=True)
    pairs = [(true_change(adata, name), change) for name, change in rows]
    wrong = sum(np.square(truth - change).sum() for truth, change in pairs)
    return wrong / sum(np.square(truth).sum() for truth, _ in pairs)


def test_linear_effects_are_recovered(adata, model, coordinates):
    found = model.predict(NEW, embedding=coordinates)
    assert errors(adata, found) < 0.3
    assert not found.obs["is_measured"].any()
    inside = [
        (true_change(adata, name) >= found.layers["lfc_lower"][row])
        & (true_change(adata, name) <= found.layers["lfc_upper"][row])
        for row, name in enumerate(NEW)
    ]
    assert np.mean(inside) > 0.7


def test_coordinates_without_information_predict_about_no_change(adata, model, coordinates):
    rng = np.random.default_rng(0)
    noise = pd.DataFrame(rng.normal(size=coordinates.shape), coordinates.index)
    found = model.predict(NEW, embedding=noise)
    assert errors(adata, found) < 1.3
    own = model.predict(NEW, embedding=coordinates)
    assert np.square(found.layers["lfc"]).mean() < 0.5 * np.square(own.layers["lfc"]).mean()


def test_a_coordinate_that_differs_by_rounding_is_not_used(model, coordinates):
    """Such as the loading of a gene without counts."""
    rounding = 1e-17 * np.random.default_rng(0).normal(size=len(coordinates))
    rounding[coordinates.index.get_loc("P0")] = 0.2
    found = model.predict("P0", embedding=coordinates.assign(rounding=rounding))
    expected = model.predict("P0", embedding=coordinates)
    np.testing.assert_allclose(found.layers["lfc"], expected.layers["lfc"], rtol=1e-5)


def test_pairs_of_new_and_measured_perturbations_are_sums(model, coordinates):
    one, two, both, new = (
        model.predict(name, embedding=coordinates).layers["lfc"][0]
        for name in ("P0", "P9", "P0+P9", "P0+P1")
    )
    rest = both - one - two
    np.testing.assert_allclose(rest, rest[0], atol=1e-4)
    rest = new - one - model.predict("P1", embedding=coordinates).layers["lfc"][0]
    np.testing.assert_allclose(rest, rest[0], atol=1e-4)


def test_measured_perturbations_do_not_use_coordinates(model, coordinates):
    found, expected = model.predict("P9", embedding=coordinates), model.predict("P9")
    np.testing.assert_array_equal(found.X, expected.X)
    assert found.obs["is_measured"].tolist() == [True]
    np.testing.assert_array_equal(found.layers["cell_upper"], expected.layers["cell_upper"])


def test_scale_and_order_of_the_table_do_not_matter(model, coordinates):
    found = model.predict("P0", embedding=100 * coordinates.iloc[::-1] - 7).X
    np.testing.assert_allclose(found, model.predict("P0", embedding=coordinates).X, rtol=1e-3)
    constant = coordinates.assign(constant=1.0)
    np.testing.assert_allclose(
        model.predict("P0", embedding=constant).X,
        model.predict("P0", embedding=coordinates).X,
        rtol=1e-3,
    )


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda e: e.to_numpy(), TypeError, "`embedding` must be a DataFrame .* not ndarray"),
        (lambda e: pd.concat([e, e]), ValueError, "`embedding` has several rows for 'P0'"),
        (lambda e: e.astype(str), ValueError, "`embedding` must have columns of numbers"),
        (lambda e: e[[]], ValueError, "`embedding` must have columns of numbers"),
        (lambda e: e * np.nan, ValueError, "`embedding` has values that are not finite"),
        (lambda e: e.iloc[:6], ValueError, "`embedding` has 2 of the 26 measured .* at least 5"),
        (lambda e: e.iloc[5:], KeyError, "'P0' was not measured"),
    ],
)
def test_unsuitable_tables_are_named(model, coordinates, change, error, message):
    with pytest.raises(error, match=message):
        model.predict("P0", embedding=change(coordinates))


def test_perturbations_without_a_row_are_named(model, coordinates):
    with pytest.raises(KeyError, match="'P77' was not measured"):
        model.predict("P77", embedding=coordinates)


def test_models_with_doses_have_no_embedding():
    adata = screen(600, n_genes=30, n_perturbations=6, n_combinations=0, doses=(1, 10))
    model = fitted(adata, keys={"dose_key": "dose"})
    table = pd.DataFrame(np.eye(7), [*(f"P{i}" for i in range(6)), "new"])
    with pytest.raises(ValueError, match="`embedding` is not available for models with doses"):
        model.predict("new", dose=1.0, embedding=table)
