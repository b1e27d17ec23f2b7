from __future__ import annotations

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from betavi.datasets import EffectDistribution, expected_profile, simulate_perturbations

FULL = {
    "n_cells": 600,
    "n_genes": 40,
    "n_perturbations": 4,
    "n_combinations": 3,
    "effects": EffectDistribution(n_programs=3, share_interacting=0.3, context_sd=0.2),
    "doses": (0.1, 1, 10),
    "n_contexts": 2,
    "n_replicates": 2,
    "replicate_sd": 0.1,
}


def shares(adata, is_chosen):
    counts = np.asarray(adata[is_chosen].X.sum(axis=0)).ravel()
    return counts / counts.sum()


def test_shapes_types_and_names():
    adata = simulate_perturbations(**FULL)
    assert adata.shape == (600, 40)
    assert sparse.issparse(adata.X)
    assert adata.X.format == "csr"
    assert adata.X.dtype == np.int32
    truth = adata.uns["truth"]
    names = ["P0", "P1", "P2", "P3"]
    assert list(truth["effects"]) == list(truth["context_deviations"]["context_1"]) == names
    pairs = list(truth["interactions"])
    assert len(set(pairs)) == 3
    assert {single for pair in pairs for single in pair.split("+")} <= set(names)
    assert list(adata.obs["perturbation"].cat.categories) == ["control", *names, *pairs]
    assert list(truth["dose_curves"].columns) == ["ec50", "slope"]
    assert truth["dose_curves"]["ec50"].between(0.1, 10).all()
    assert list(truth["sample_noise"]) == list(adata.obs["sample"].cat.categories)
    assert adata.obsm["z"].shape == (600, 5)


def test_every_condition_has_cells_of_every_context_and_replicate():
    obs = simulate_perturbations(**FULL, control_share=0.3).obs
    is_control = obs["perturbation"] == "control"
    assert is_control.mean() == pytest.approx(0.3)
    assert (obs.loc[is_control, "dose"] == 0).all()
    sizes = obs.groupby(["perturbation", "dose", "context", "replicate"], observed=True).size()
    assert len(sizes) == 4 + 7 * 3 * 4
    assert np.ptp(sizes.drop("control")) <= 1
    assert obs["sample"].nunique() == len(sizes)


def test_every_condition_has_a_cell_of_the_fewest():
    obs = simulate_perturbations(12, 5, 5, 5, control_share=0.1, n_replicates=3).obs
    assert obs["perturbation"].value_counts().min() == 1
    assert "dose" not in obs


def test_doses_are_optional():
    truth = simulate_perturbations(50, 5, 2).uns["truth"]
    assert not {"dose_curves", "programs"} & set(truth)
    assert truth["interactions"].shape == (5, 0)
    assert (truth["sample_noise"] == 0).all(axis=None)
    assert (truth["context_shifts"] == 0).all(axis=None)


def test_the_same_seed_gives_the_same_cells():
    first, again, other = (simulate_perturbations(200, 20, seed=seed) for seed in (3, 3, 4))
    assert (first.X != again.X).nnz == 0
    assert (first.X != other.X).nnz > 0


def test_the_truth_does_not_depend_on_the_number_of_cells():
    few, many = (simulate_perturbations(**{**FULL, "n_cells": n}) for n in (200, 400))
    for name in ("effects", "interactions", "dose_curves", "context_shifts", "programs"):
        assert few.uns["truth"][name].equals(many.uns["truth"][name])
    assert few.var.equals(many.var)


def test_counts_agree_with_the_expected_profile():
    effects = EffectDistribution(share_affected=0.3, share_interacting=0.5)
    adata = simulate_perturbations(
        20_000, 50, 2, 1, effects=effects, doses=(3.0,), control_share=0.25, state_sd=0.2
    )
    for name in adata.obs["perturbation"].cat.categories:
        measured = shares(adata, (adata.obs["perturbation"] == name).to_numpy())
        dose = None if name == "control" else 3.0
        np.testing.assert_allclose(measured, expected_profile(adata, name, dose), rtol=0.08)
    assert not np.allclose(measured, expected_profile(adata, "control"), rtol=0.3)


def test_counts_of_a_context_agree_with_its_profile():
    effects = EffectDistribution(share_affected=0.5, context_sd=1)
    adata = simulate_perturbations(8000, 30, 1, n_contexts=2, effects=effects, control_share=0.5)
    for context in ("context_0", "context_1"):
        is_chosen = (adata.obs["perturbation"] == "P0") & (adata.obs["context"] == context)
        expected = expected_profile(adata, "P0", context=context)
        np.testing.assert_allclose(shares(adata, is_chosen.to_numpy()), expected, rtol=0.15)


@pytest.mark.parametrize("theta", [np.inf, 2.0])
def test_counts_have_the_variance_of_the_truth(theta):
    adata = simulate_perturbations(10_000, 20, 1, n_factors=0, theta=theta, control_share=0.9)
    controls = adata[adata.obs["perturbation"] == "control"]
    profile = expected_profile(adata, "control").to_numpy()
    mean = controls.obs["library_size"].to_numpy()[:, None] * profile
    squares = (controls.X.toarray() - mean) ** 2 / (mean + mean**2 / theta)
    np.testing.assert_allclose(squares.mean(axis=0), 1, rtol=0.15)
    assert (adata.var["theta"] == theta).all()


def test_cells_of_a_sample_share_the_noise_of_a_replicate():
    adata = simulate_perturbations(
        4000, 50, 1, n_replicates=4, replicate_sd=0.5, n_factors=0, library_size=10_000
    )
    profile, noise = expected_profile(adata, "P0"), adata.uns["truth"]["sample_noise"]
    samples = [name for name in noise if name.startswith("P0")]
    assert len(samples) == 4
    measured = pd.DataFrame(
        {
            name: np.log(shares(adata, (adata.obs["sample"] == name).to_numpy()) / profile)
            for name in samples
        }
    )
    difference = measured - noise[samples]
    assert difference.std().max() < 0.1
    assert noise.to_numpy().std() == pytest.approx(0.5, rel=0.15)


def test_effects_are_sparse():
    effects = EffectDistribution(share_affected=0.2, effect_sd=0.7)
    values = simulate_perturbations(100, 2000, 5, effects=effects).uns["truth"]["effects"]
    assert (values != 0).mean().to_numpy() == pytest.approx(0.2, abs=0.04)
    assert np.std(values.to_numpy()[values != 0]) == pytest.approx(0.7, rel=0.1)


def test_interactions_are_on_affected_genes():
    effects = EffectDistribution(share_affected=0.2, share_interacting=0.5, interaction_sd=2)
    adata = simulate_perturbations(100, 2000, 5, 4, effects=effects)
    values = adata.uns["truth"]["interactions"]
    for pair in values:
        is_affected = (adata.uns["truth"]["effects"][pair.split("+")] != 0).any(axis=1)
        assert (values.loc[~is_affected, pair] == 0).all()
        assert (values.loc[is_affected, pair] != 0).mean() == pytest.approx(0.5, abs=0.08)
    assert np.std(values.to_numpy()[values != 0]) == pytest.approx(2, rel=0.1)


@pytest.mark.parametrize("n_programs", [1, 3])
def test_effects_share_programs(n_programs):
    effects = EffectDistribution(n_programs=n_programs)
    truth = simulate_perturbations(100, 300, 12, effects=effects).uns["truth"]
    product = truth["programs"] @ truth["program_weights"]
    pd.testing.assert_frame_equal(product, truth["effects"])
    assert np.linalg.matrix_rank(product.to_numpy()) == n_programs
    assert ((truth["program_weights"] != 0).sum() == min(2, n_programs)).all()


def test_blocks_leave_no_seam(monkeypatch):
    monkeypatch.setattr("betavi._blocks.SIMULATED_CELLS", 64)
    assert simulate_perturbations(200, 10).X.shape == (200, 10)


def test_the_truth_survives_a_file(tmp_path):
    adata = simulate_perturbations(**FULL)
    adata.write_h5ad(tmp_path / "x.h5ad")
    again = anndata.read_h5ad(tmp_path / "x.h5ad")
    for condition in (
        ("control",),
        ("P0", 1.0),
        (adata.uns["truth"]["interactions"].columns[0], 3),
    ):
        assert expected_profile(again, *condition).equals(expected_profile(adata, *condition))


@pytest.mark.parametrize(
    "kwargs",
    [
        {"n_cells": 11},
        {"n_genes": 0},
        {"n_perturbations": 0},
        {"n_combinations": 46},
        {"doses": []},
        {"doses": [1, 1]},
        {"doses": [0.0, 1.0]},
        {"doses": [np.inf]},
        {"n_contexts": 0},
        {"n_replicates": 0},
        {"replicate_sd": -1},
        {"control_share": 0},
        {"control_share": 1},
        {"n_factors": -1},
        {"state_sd": -0.1},
        {"library_size": 0},
        {"theta": 0},
        {"theta": [1.0, 2.0]},
    ],
)
def test_numbers_out_of_range_are_refused(kwargs):
    (name,) = kwargs
    with pytest.raises(ValueError, match=f"`{name}` must be .*, not "):
        simulate_perturbations(**kwargs)


@pytest.mark.parametrize(
    "kwargs",
    [{"share_affected": 1.1}, {"share_interacting": -1}, {"effect_sd": -1}, {"n_programs": -1},
     {"interaction_sd": -1}, {"context_sd": -1}],
)  # fmt: skip
def test_an_impossible_distribution_is_refused(kwargs):
    ((name, value),) = kwargs.items()
    with pytest.raises(ValueError, match=rf"`{name}` must be .*, not {value}"):
        EffectDistribution(**kwargs)
