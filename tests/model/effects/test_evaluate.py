"""Predictions of left-out conditions, beside baselines."""

from __future__ import annotations

import os

import anndata
import numpy as np
import pandas as pd
import pytest

import betavi
from betavi.data.conditions import Conditions
from betavi.diagnostics.effects import inflation, sum_groups
from betavi.model.effects.evaluate import drawn_sums
from betavi.model.effects.folds import folds_of, halves_of, measured
from betavi.model.effects.scoring import CEILING, NO_CHANGE, OWN, significant_genes
from betavi.module.effect_groups import groups_of

simulate = betavi.datasets.simulate_perturbations


def screen(**kwargs):
    options = {"n_cells": 3000, "n_genes": 200, "n_perturbations": 6, "n_combinations": 4}
    adata = simulate(**options | {"library_size": 2000.0} | kwargs)
    keys = {"perturbation_key": "perturbation"}
    keys |= {"context_key": "context"} if kwargs.get("n_contexts", 1) > 1 else {}
    keys |= {"dose_key": "dose"} if "doses" in kwargs else {}
    keys |= {"replicate_key": "replicate"} if kwargs.get("n_replicates", 1) > 1 else {}
    betavi.EffectVI.setup_anndata(adata, **keys)
    return betavi.EffectVI(adata)


@pytest.fixture(scope="module")
def pairs():
    return screen()


def test_own_prediction_beats_every_baseline_on_additive_pairs(pairs):
    table = pairs.evaluate(n_genes=200, show_progress=False)
    others = table.drop(index=[OWN, CEILING])
    assert (table.loc[OWN, "l2"] < others["l2"]).all()
    assert table.loc[OWN, "share"] > 0.8
    assert table.loc[OWN, "r_control"] > 0.8
    assert 0.85 < table.loc[OWN, "coverage"] < 0.95
    assert table.loc[NO_CHANGE, "share"] == 0


def test_effects_that_interact_are_worse_than_additive_ones(pairs):
    mixed = betavi.datasets.EffectDistribution(share_interacting=0.8, interaction_sd=1.5)
    # with few pairs, the size of interactions is not known well
    model = screen(effects=mixed, n_combinations=12, n_cells=8000)
    table = model.evaluate(n_genes=200, show_progress=False)
    additive = pairs.evaluate(n_genes=200, show_progress=False)
    assert table.loc[OWN, "share"] < additive.loc[OWN, "share"]
    assert table.loc[OWN, "coverage"] > 0.8


def test_one_row_for_each_condition_and_method(pairs):
    table = pairs.evaluate(by_condition=True, show_progress=False)
    means = pairs.evaluate(show_progress=False)
    assert list(table.index.names) == ["condition", "method"]
    of_own = table.xs(OWN, level="method")
    assert len(of_own) == 4
    assert all("+" in name for name in of_own.index)
    np.testing.assert_allclose(of_own["l2"].mean(), means.loc[OWN, "l2"])


def test_counts_of_left_out_cells_do_not_change_the_prediction(pairs):
    adata = pairs.adata.copy()
    name = next(name for name in adata.obs["perturbation"].unique() if "+" in name)
    first = pairs.evaluate(by_condition=True, show_progress=False)
    changed = (adata.obs["perturbation"] == name).to_numpy()
    adata.X[changed] = adata.X[changed][:, ::-1]
    betavi.EffectVI.setup_anndata(adata, perturbation_key="perturbation")
    second = betavi.EffectVI(adata).evaluate(by_condition=True, show_progress=False)
    key = (pairs.conditions.pair_names[0], OWN)
    assert not np.isclose(first.loc[key, "l2"], second.loc[key, "l2"]) or key[0] != name
    # profiles are compared with shuffled genes, so that a leak would keep the score
    leaked = (name if name in first.index else "+".join(sorted(name.split("+"))), OWN)
    assert second.loc[leaked, "r_control"] < 0.5 < first.loc[leaked, "r_control"]


@pytest.mark.parametrize(
    ("split", "kwargs"),
    [
        ("context", {"n_contexts": 3, "n_combinations": 0}),
        ("dose", {"doses": (0.1, 0.5, 2.0, 10.0, 50.0), "n_combinations": 0, "n_perturbations": 3}),
    ],
)
def test_other_splits_beat_no_change(split, kwargs):
    table = screen(**kwargs).evaluate(split, n_genes=200, show_progress=False)
    assert table.loc[OWN, "l2"] < table.loc[NO_CHANGE, "l2"]
    assert table.loc[OWN, "share"] > 0.5
    assert 0.8 < table.loc[OWN, "coverage"] < 0.97


def test_context_with_similar_controls_is_used():
    model = screen(n_contexts=3, n_combinations=0)
    folds = folds_of(model.conditions, measured(model, np.random.default_rng(0)).groups, "context")
    assert len(folds) == 18
    assert {fold.context for fold in folds} == {0, 1, 2}


@pytest.mark.parametrize("split", ["combination", "context", "dose"])
def test_nothing_to_leave_out(split):
    model = screen(n_combinations=0)
    with pytest.raises(ValueError, match="No condition can be left out"):
        model.evaluate(split, show_progress=False)


@pytest.mark.parametrize(
    ("kwargs", "error"),
    [
        ({"split": "cell"}, ValueError),
        ({"n_genes": 0}, ValueError),
        ({"level": "high"}, TypeError),
    ],
)
def test_bad_arguments(pairs, kwargs, error):
    with pytest.raises(error):
        pairs.evaluate(show_progress=False, **kwargs)


def test_seed_repeats_the_table(pairs):
    one, two = (pairs.evaluate(seed=3, show_progress=False) for _ in range(2))
    pd.testing.assert_frame_equal(one, two)


def test_halves_of_each_group_add_up(pairs):
    data = measured(pairs, np.random.default_rng(0))
    np.testing.assert_array_equal(sum(data.halves), data.sums.counts)
    groups = groups_of(pairs.adata_manager, np.arange(pairs.adata.n_obs))
    assert len(groups.codes) == len(data.sums.counts)


def test_halves_are_equally_large():
    member = np.repeat([0, 1, 2], [100, 3, 1])
    half = halves_of(member, np.random.default_rng(0))
    assert np.bincount(half[member == 0]).tolist() == [50, 50]
    assert sorted(np.bincount(half[member == 1])) == [1, 2]


def test_conditions_of_one_cell_have_no_ceiling():
    model = screen(n_cells=60, n_combinations=0, n_perturbations=3, doses=(0.1, 1.0, 10.0))
    adata = model.adata
    keep = ~adata.obs[["perturbation", "dose"]].duplicated() | (adata.obs["dose"] == 0)
    adata = adata[keep.to_numpy()].copy()
    betavi.EffectVI.setup_anndata(adata, perturbation_key="perturbation", dose_key="dose")
    table = betavi.EffectVI(adata).evaluate("dose", show_progress=False)
    assert table.loc[CEILING].isna().all()
    assert table.loc[OWN, ["l2", "coverage"]].notna().all()


@pytest.mark.parametrize("inflation", [1.0, 5.0])
def test_variance_of_drawn_sums(inflation):
    rng = np.random.default_rng(0)
    counts = drawn_sums(np.full((20_000, 1), 40.0), np.array([inflation]), rng)
    assert counts.mean() == pytest.approx(40, rel=0.02)
    assert counts.var() == pytest.approx(40 * inflation, rel=0.05)


def test_doses_name_the_folds():
    conditions = Conditions.of_names(["A", "control"], "control", doses=[0, 1, 10])
    assert conditions.doses.tolist() == [[0], [1], [10]]


@pytest.mark.skipif("BETAVI_DATA_DIR" not in os.environ, reason="BETAVI_DATA_DIR is not set")
def test_doubles_of_norman():
    path = f"{os.environ['BETAVI_DATA_DIR']}/norman19_mcfaline23_counts.h5ad"
    adata = anndata.read_h5ad(path)
    adata = adata[adata.obs["dataset"] == "norman19"].copy()
    betavi.EffectVI.setup_anndata(adata, perturbation_key="condition")
    table = betavi.EffectVI(adata).evaluate(show_progress=False)
    assert (table.loc[OWN, "l2"] < table.drop(index=[OWN])["l2"]).all()
    assert 0.85 < table.loc[OWN, "coverage"] < 0.95


@pytest.mark.parametrize("clump", [1, 6])
def test_halves_of_the_same_cells_have_no_significant_genes(clump):
    rng, found = np.random.default_rng(0), []
    cells = clump * rng.poisson(rng.gamma(2, 0.5, (600, 1)) * rng.gamma(1, 0.5, 400))
    for seed in range(10):
        half = np.random.default_rng(seed).integers(2, size=600)
        sums = sum_groups([(cells, half)], 2, 400)
        found.append(significant_genes(*sums.counts, inflation(sums)).sum())
    assert np.mean(found) < 2
    changed = sums.counts * [[1.0], [3.0]]
    changed[:, 200:] = sums.counts[:, 200:]
    assert significant_genes(*changed, inflation(sums))[:200].mean() > 0.4
