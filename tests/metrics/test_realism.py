"""Distances of samples beside closed forms, and cells of known likeness in order."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import sparse

from betavi.datasets import simulate_counts
from betavi.metrics import (
    energy_distance,
    log_fold_changes,
    maximum_mean_discrepancy,
    realism,
    two_sample_auc,
)


def test_energy_distance_of_normals_has_a_closed_form():
    """Of N(0, 1) and N(m, 1): E|X - Y| is of a folded normal of variance 2."""
    from scipy.stats import foldnorm

    rng = np.random.default_rng(0)
    one, two = rng.normal(size=(3000, 1)), rng.normal(size=(3000, 1)) + 2.0
    across = foldnorm(2.0 / np.sqrt(2), scale=np.sqrt(2)).mean()
    within = foldnorm(0, scale=np.sqrt(2)).mean()
    assert energy_distance(one, two) == pytest.approx(2 * across - 2 * within, rel=0.1)


def test_mmd_of_normals_has_a_closed_form():
    """With a normal kernel of variance h^2, E k(X, Y) is a normal density up to a factor."""
    rng = np.random.default_rng(0)
    shift, bandwidth = 1.5, 1.0
    one, two = rng.normal(size=(2000, 1)), rng.normal(size=(2000, 1)) + shift
    spread = bandwidth**2 + 2
    factor = bandwidth / np.sqrt(spread)
    expected = 2 * factor * (1 - np.exp(-(shift**2) / (2 * spread)))
    assert maximum_mean_discrepancy(one, two, bandwidth) == pytest.approx(expected, rel=0.1)


@pytest.mark.parametrize("distance", [energy_distance, maximum_mean_discrepancy])
def test_distances_of_the_same_distribution_are_around_zero(distance):
    rng = np.random.default_rng(0)
    found = [distance(*rng.normal(size=(2, 60, 3))) for _ in range(60)]
    assert abs(np.mean(found)) < 3 * np.std(found) / np.sqrt(60)
    assert min(found) < 0 < max(found)
    with pytest.raises(ValueError, match="no distances within"):
        distance(np.zeros((1, 2)), np.zeros((5, 2)))


def test_a_forest_tells_what_can_be_told():
    rng = np.random.default_rng(0)
    one, two = rng.normal(size=(2, 400, 5))
    assert two_sample_auc(one, two) == pytest.approx(0.5, abs=0.08)
    assert 0.65 < two_sample_auc(one, two + 0.5) < two_sample_auc(one, two + 2) <= 1
    # also a difference that no line tells
    assert two_sample_auc(one, 3 * two) > 0.9


def test_fold_changes_are_those_of_sums():
    counts = sparse.csr_matrix([[10, 90], [30, 70], [50, 50], [50, 50]])
    change = log_fold_changes(counts, np.array([True, True, False, False]))
    np.testing.assert_allclose(change, np.log2([2000.1 / 5000.1, 8000.1 / 5000.1]))


@pytest.fixture(scope="module")
def table():
    """Generated cells of the same kind, of one type only, and with more genes' counts halved."""
    whole = simulate_counts(n_cells=1600, n_genes=60, n_types=3, seed=0)
    real, same = whole[:1000].copy(), whole[1000:].copy()
    shallow = same.copy()
    shallow.X = sparse.csr_matrix(
        np.random.default_rng(0).binomial(same.X.toarray().astype(int), 0.5)
    )
    blurred = same.copy()
    blurred.obs["cell_type"] = np.random.default_rng(0).permutation(same.obs["cell_type"])
    one_type = same[same.obs["cell_type"] == same.obs["cell_type"].iloc[0]]
    generated = {"same": same, "shallow": shallow, "blurred": blurred, "one type": one_type}
    return realism(real, generated, groupby="cell_type")


def test_the_ceiling_the_floor_and_what_is_between(table):
    ceiling, floor = table.iloc[0], table.iloc[-1]
    assert table.index[[0, -1]].tolist() == ["other half of the real cells", "genes shuffled"]
    assert ceiling["auc"] == pytest.approx(0.5, abs=0.08)
    assert floor["auc"] > 0.75
    for column in ("auc", "mmd2", "energy", "correlation"):
        assert floor[column] > ceiling[column]
        assert table.loc["same", column] == pytest.approx(ceiling[column], abs=0.25 * floor[column])
        assert table.loc["one type", column] > table.loc["same", column]
    # shuffling leaves every gene its own counts
    assert floor["zeros"] == pytest.approx(ceiling["zeros"], abs=0.02)
    assert table.loc["shallow", "zeros"] > 2 * table.loc["same", "zeros"]
    assert table.loc["shallow", "variance"] > 2 * table.loc["same", "variance"]


def test_fold_changes_are_recovered_or_not(table):
    for name in ("other half of the real cells", "same", "shallow"):
        assert table.loc[name, "lfc_slope"] == pytest.approx(1, abs=0.15)
        assert table.loc[name, "lfc_r"] > 0.9
    for name in ("blurred", "genes shuffled"):
        assert abs(table.loc[name, "lfc_slope"]) < 0.3
    assert np.isnan(table.loc["one type", "lfc_slope"])


def test_bad_input_is_named():
    real = simulate_counts(n_cells=60, n_genes=10)
    with pytest.raises(ValueError, match="genes of 'mine' are not"):
        realism(real, {"mine": real[:, ::-1]})
    with pytest.raises(ValueError, match="too few to halve"):
        realism(real[:5], real)
    with pytest.raises(KeyError):
        realism(real, real, groupby="nothing")
    without = AnnData(real.X, obs=pd.DataFrame(index=real.obs_names), var=real.var)
    assert "lfc_slope" not in realism(real, without)
