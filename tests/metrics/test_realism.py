"""Distances of samples beside closed forms, and cells of known likeness in order."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import sparse

from betavi.datasets import simulate_counts, simulate_multiome
from betavi.metrics import (
    energy_distance,
    log_fold_changes,
    maximum_mean_discrepancy,
    mean_curves,
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
    with pytest.raises(ValueError, match="Each sample needs at least 2 points"):
        distance(np.zeros((1, 2)), np.zeros((5, 2)))


@pytest.mark.slow
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
    whole = simulate_counts(n_cells=3200, n_genes=60, n_types=3, seed=0)
    real, same = whole[:2200].copy(), whole[2200:].copy()
    shallow = same.copy()
    shallow.X = sparse.csr_matrix(
        np.random.default_rng(0).binomial(same.X.toarray().astype(int), 0.5)
    )
    blurred = same.copy()
    blurred.obs["cell_type"] = np.random.default_rng(0).permutation(same.obs["cell_type"])
    one_type = same[same.obs["cell_type"] == same.obs["cell_type"].iloc[0]]
    generated = {"same": same, "shallow": shallow, "blurred": blurred, "one type": one_type}
    return realism(real, generated, groupby="cell_type")


@pytest.mark.slow
def test_the_ceiling_the_floor_and_what_is_between(table):
    ceiling, floor = table.iloc[0], table.iloc[-1]
    assert table.index[[0, -1]].tolist() == ["other real cells", "genes shuffled"]
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


@pytest.mark.slow
def test_fold_changes_are_recovered_or_not(table):
    for name in ("other real cells", "same", "shallow"):
        assert table.loc[name, "lfc_slope"] == pytest.approx(1, abs=0.15)
        assert table.loc[name, "lfc_r"] > 0.9
    for name in ("blurred", "genes shuffled"):
        assert abs(table.loc[name, "lfc_slope"]) < 0.3
    assert np.isnan(table.loc["one type", "lfc_slope"])


@pytest.mark.slow
def test_bad_input_is_named():
    real = simulate_counts(n_cells=60, n_genes=10)
    with pytest.raises(ValueError, match="genes of the generated cells 'mine' must be"):
        realism(real, {"mine": real[:, ::-1]})
    with pytest.raises(ValueError, match=r"real cells were passed. Pass at least 36"):
        realism(real[:35], real)
    with pytest.raises(ValueError, match=r"'mine' has only 11 cells. Pass at least 12"):
        realism(real, {"mine": real[:11]})
    silent = AnnData(0 * real.X, obs=real.obs, var=real.var)
    with pytest.raises(ValueError, match="All counts are zero in 'mine'"):
        realism(real, {"mine": silent})
    with pytest.raises(ValueError, match="All counts are zero in cells"):
        mean_curves(silent)
    unnamed = AnnData(real.X, obs=real.obs.drop(columns="cell_type"), var=real.var)
    with pytest.raises(
        KeyError, match=r"'cell_type' is missing in obs of 'generated'.*labels_key='cell_type'"
    ):
        realism(real, unnamed, groupby="cell_type")
    with pytest.raises(KeyError, match="The layer 'raw' is missing in the real cells"):
        realism(real, real, layer="raw")
    normalised = real.copy()
    normalised.X = normalised.X * 0.7
    with pytest.raises(ValueError, match="the real cells hold non-integer values"):
        realism(normalised, real)
    # a normal distribution generates fractions, but nothing below zero
    assert len(realism(real, normalised)) == 3
    normalised.X = -normalised.X
    with pytest.raises(ValueError, match="'generated' must be finite and at least 0"):
        realism(real, normalised)
    without = AnnData(real.X, obs=pd.DataFrame(index=real.obs_names), var=real.var)
    assert "lfc_slope" not in realism(real, without)


def test_one_assay_is_compared_at_a_time():
    mdata = simulate_multiome(n_cells=40)
    with pytest.raises(TypeError, match=r"MuData of the real cells has several: .*\['rna'\]"):
        realism(mdata, mdata)


@pytest.mark.slow
def test_counts_that_denoising_moved_are_found():
    real, other = (simulate_counts(n_cells=120, n_genes=20, seed=seed) for seed in (0, 0))
    real.layers["counts"] = real.X.copy()
    real.X = real.X * 0.3
    real.uns["betavi"] = {"counts_moved_to": "counts"}
    assert realism(real, other).equals(realism(other, other))


@pytest.fixture(scope="module")
def genes():
    """Poisson counts, and negative binomial ones with the same means and a dispersion of 1/2."""
    rng = np.random.default_rng(0)
    mean = np.geomspace(0.05, 50, 400)
    poisson = rng.poisson(mean, (3000, 400))
    dispersed = rng.poisson(mean * rng.gamma(2, 1 / 2, (3000, 400)))
    var = pd.DataFrame(index=[f"gene_{n}" for n in range(400)])
    return {
        name: AnnData(sparse.csr_matrix(x.astype(float)), var=var)
        for name, x in {"poisson": poisson, "dispersed": dispersed}.items()
    }


def test_mean_curves_are_the_closed_forms(genes):
    table = mean_curves(genes)
    assert table["cells"].unique().tolist() == ["poisson", "dispersed"]
    for name, variance, zeros in (
        ("poisson", lambda mean: mean, lambda mean: np.exp(-mean)),
        ("dispersed", lambda mean: mean + mean**2 / 2, lambda mean: (1 + mean / 2) ** -2.0),
    ):
        rows = table[table["cells"] == name]
        assert len(rows) == 20
        np.testing.assert_allclose(rows["variance"], variance(rows["mean"]), rtol=0.06)
        np.testing.assert_allclose(rows["zeros"], zeros(rows["mean"]), atol=0.02)


@pytest.mark.slow
def test_curves_see_noise_whichever_genes_have_it(genes):
    """Genes in another order differ one by one, and have the same curve."""
    real, order = genes["poisson"], np.random.default_rng(0).permutation(400)
    reordered = AnnData(real.X[:, order], var=real.var)
    found = realism(real, {"reordered": reordered, "dispersed": genes["dispersed"]})
    for column in ("variance", "zeros"):
        assert found.loc["reordered", column] > 5 * found.iloc[0][column]
    for column in ("variance_curve", "zeros_curve"):
        assert found.loc["reordered", column] < 0.02
        assert found.loc["dispersed", column] > 5 * found.loc["reordered", column]


@pytest.mark.slow
def test_sets_without_a_mean_in_common_have_no_curve_in_common(genes):
    real = genes["poisson"][:200, :100]
    few = real.X.toarray()
    few[:, 3:] = 0
    few = AnnData(sparse.csr_matrix(few), var=real.var)
    assert np.isnan(realism(real, few).loc["generated", "variance_curve"])


@pytest.mark.slow
@pytest.mark.parametrize("n_cells", [300, 1500])
def test_fresh_real_cells_pass_for_real(n_cells):
    """Also if genes are many beside the cells, and components hold mostly the noise of their own."""
    whole = simulate_counts(n_cells=2 * n_cells, n_genes=800, n_types=3, seed=0)
    found = realism(whole[:n_cells].copy(), whole[n_cells:].copy())
    fresh, ceiling = found.loc["generated"], found.iloc[0]
    assert fresh["auc"] == pytest.approx(0.5, abs=0.09)
    assert ceiling["auc"] == pytest.approx(0.5, abs=0.09)
    assert fresh["energy"] == pytest.approx(ceiling["energy"], abs=0.2 * found.iloc[-1]["energy"])
