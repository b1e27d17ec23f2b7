"""Interactions of measured pairs, beside the truth of simulated screens."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import stats

from betavi.datasets import EffectDistribution
from tests.model.effects.screens import fitted, screen, without

WIDE = {"n_cells": 4000, "n_genes": 200, "n_perturbations": 5, "n_combinations": 5}


def interacting(share, seed, sd=1.0):
    effects = EffectDistribution(share_affected=0.3, share_interacting=share, interaction_sd=sd)
    return screen(effects=effects, seed=seed, **WIDE)


@pytest.fixture(scope="module")
def tables():
    """Tables of interactions with the truth, in log2 units, and tables of pairs."""
    found = []
    for seed in range(2):
        adata = interacting(0.3, seed)
        genes, pairs = fitted(adata).interactions()
        truth = adata.uns["truth"]["interactions"] / np.log(2)
        by_name = zip(genes["gene"], genes["pair"], strict=True)
        found.append((genes.assign(truth=[truth.loc[each] for each in by_name]), pairs))
    return pd.concat([genes for genes, _ in found]), pd.concat([pairs for _, pairs in found])


def test_p_values_are_uniform_or_careful_without_interactions():
    p_values = np.concatenate(
        [fitted(interacting(0.0, seed)).interactions()[0]["p_value"] for seed in range(2)]
    )
    assert stats.kstest(p_values, "uniform").statistic < 0.12
    for level in (0.01, 0.05, 0.2):
        assert (p_values < level).mean() < 1.2 * level + 0.005
    assert 0.4 < (p_values < 0.5).mean() < 0.6


@pytest.mark.parametrize("n_replicates", [2, 3, 4])
def test_p_values_of_few_replicates_are_uniform(n_replicates):
    """Bulk samples without an interaction, in which the noise differs between genes."""
    rng, n_genes = np.random.default_rng(n_replicates), 2000
    names = np.repeat(["control", "A", "B", "A+B"], n_replicates)
    noise = 0.04 * 8 / rng.chisquare(8, n_genes)
    effects = rng.normal(size=(2, n_genes)) * (rng.random((2, n_genes)) < 0.1)
    log_mean = rng.normal(5, 1.5, n_genes) + np.stack(
        [
            sum(effects[i] for i, part in enumerate("AB") if part in name.split("+"))
            + np.zeros(n_genes)
            for name in names
        ]
    )
    depth = rng.lognormal(0, 0.3, (len(names), 1))
    mean = depth * np.exp(log_mean) * rng.gamma(1 / noise, noise, log_mean.shape)
    adata = AnnData(
        rng.poisson(mean).astype(np.float32),
        obs=pd.DataFrame(
            {"perturbation": names, "replicate": [f"r{i}" for i in range(len(names))]},
            index=[f"s{i}" for i in range(len(names))],
        ),
    )
    model = fitted(adata, keys={"replicate_key": "replicate"}, training={"train_size": 1.0})
    table, _ = model.interactions()
    p_value = table["p_value"].to_numpy()
    assert 0.03 < (p_value < 0.05).mean() < 0.07
    assert (p_value < 0.001).mean() < 0.004
    assert (table["fdr"] < 0.1).sum() <= 3


def test_pairs_without_interactions_are_additive():
    genes, pairs = fitted(interacting(0.0, 3)).interactions()
    assert pairs["n_genes"].sum() <= 5
    assert (pairs["kind"] == "additive").sum() >= 3
    np.testing.assert_allclose(pairs["magnitude"], 1, atol=0.1)
    assert (genes["shrunken"].abs() <= genes["estimate"].abs() + 1e-6).mean() > 0.95


def test_interactions_are_found_with_their_sign(tables):
    genes, pairs = tables
    large = genes["truth"].abs() > 0.7
    assert (genes["fdr"][large] < 0.1).mean() > 0.8
    found = genes[genes["fdr"] < 0.1]
    assert (found["truth"] == 0).mean() < 0.15
    true = found[found["truth"] != 0]
    assert (np.sign(true["estimate"]) == np.sign(true["truth"])).mean() > 0.97
    assert (pairs["n_genes"] > 5).all()
    assert set(pairs["kind"]) <= {"synergistic", "buffering", "mixed"}


def test_errors_are_those_of_the_estimates(tables):
    genes, _ = tables
    z = (genes["estimate"] - genes["truth"]) / genes["error"]
    assert 0.7 < z[genes["truth"] == 0].std() < 1.2
    shrunken = np.square(genes["shrunken"] - genes["truth"]).mean()
    assert shrunken < 0.9 * np.square(genes["estimate"] - genes["truth"]).mean()


def test_columns_are_documented(tables):
    genes, pairs = tables
    assert list(genes)[:-1] == ["pair", "gene", "estimate", "error", "shrunken", "p_value", "fdr"]
    assert list(pairs) == ["n_genes", "magnitude", "size", "kind"]
    assert len(genes) == len(pairs) * WIDE["n_genes"]
    expected = genes[genes["fdr"] < 0.1].groupby("pair").size()
    # both seeds have the same numbers of perturbations, so some names occur twice
    assert expected.sum() == pairs["n_genes"].sum()


def test_a_stricter_rate_finds_fewer_genes():
    model = fitted(interacting(0.3, 0))
    strict, usual, all_genes = (
        model.interactions(fdr=fdr)[1]["n_genes"] for fdr in (1e-6, 0.1, 1.0)
    )
    assert (strict <= usual).all()
    assert strict.sum() < usual.sum()
    assert (all_genes >= 0.9 * WIDE["n_genes"]).all()


def test_the_magnitude_tells_buffering_from_synergy():
    adata = screen(4000, n_perturbations=4, n_combinations=3, seed=2)
    truth, genes = adata.uns["truth"], adata.var_names
    first, second, _ = truth["interactions"]
    rng = np.random.default_rng(0)
    counts = adata.X.toarray().astype(float)
    for pair, factor in ((first, -0.6), (second, 0.6)):
        shift = factor * truth["effects"][pair.split("+")].sum(axis=1).loc[genes]
        cells = (adata.obs["perturbation"] == pair).to_numpy()
        counts[cells] = rng.poisson(counts[cells] * np.exp(shift.to_numpy()))
    adata.X = counts.astype(np.float32)
    _, pairs = fitted(adata).interactions()
    assert pairs.loc[first, "kind"] == "buffering"
    assert pairs.loc[first, "magnitude"] < 0.7
    assert pairs.loc[second, "kind"] == "synergistic"
    assert pairs.loc[second, "magnitude"] > 1.3


def test_pairs_without_single_effects_are_left_out():
    adata = screen(1500, n_genes=60)
    first, *others = adata.uns["truth"]["interactions"]
    single = first.split("+")[0]
    model = fitted(without(adata, adata.obs["perturbation"] == single))
    found = model.interactions()[1].index
    assert found.tolist() == [pair for pair in others if single not in pair.split("+")]
    # its pairs are measured nevertheless
    assert model.predict(first).obs["is_measured"].tolist() == [True]


def test_screens_without_estimable_pairs_are_named():
    adata = screen(800, n_genes=40, n_combinations=0)
    with pytest.raises(ValueError, match="No combination was measured"):
        fitted(adata).interactions()
    adata = screen(800, n_genes=40, n_perturbations=2, n_combinations=1)
    rest = without(adata, adata.obs["perturbation"].isin(["P0", "P1"]))
    with pytest.raises(ValueError, match="No interaction can be separated"):
        fitted(rest).interactions()


@pytest.mark.parametrize(
    ("fdr", "error"), [(2, ValueError), (-0.1, ValueError), ("x", TypeError), (None, TypeError)]
)
def test_rates_that_are_none_are_named(fdr, error):
    model = fitted(screen(400, n_genes=20))
    with pytest.raises(error, match="`fdr` must be"):
        model.interactions(fdr=fdr)


@pytest.mark.slow
def test_real_pairs_have_tables(real):
    adata = real("norman19_mcfaline23_counts.h5ad")
    condition = adata.obs["condition"].astype(str).str.replace("+ctrl", "").str.replace("ctrl+", "")
    adata.obs["perturbation"] = condition
    singles = set(condition[~condition.str.contains("+", regex=False)])
    doubles = [
        name for name in condition.unique() if "+" in name and set(name.split("+")) <= singles
    ]
    adata = adata[condition.isin([*singles, *doubles])].copy()
    control = next(name for name in ("ctrl", "control") if name in singles)
    model = fitted(adata, keys={"control": control})
    genes, pairs = model.interactions()
    assert set(pairs.index) == {"+".join(sorted(name.split("+"))) for name in doubles}
    assert pairs["magnitude"].between(0.2, 4).all()
    # genes with few counts in a pair are not tested
    tested = genes["p_value"].notna()
    assert genes.loc[tested, "p_value"].between(0, 1).all()
    assert (genes["error"] < 4).equals(tested)
    assert tested.sum() > 1000
    # most genes of a pair do not interact
    assert (pairs["n_genes"] < 0.5 * adata.n_vars).all()
