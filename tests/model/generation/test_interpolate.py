"""Paths between cells, the archetype, and the map of every kind of model."""

from __future__ import annotations

import warnings

import mudata
import numpy as np
import pytest
import torch

import betavi
from betavi import BetaVI, JointVI
from betavi.datasets import simulate_counts, simulate_multiome
from betavi.model.generation.interpolate import PATHS
from tests.conftest import BRIEF, mostly_slow

QUIET = {"show_progress": False}


@pytest.mark.parametrize("path", PATHS)
def test_a_path_between_types(trained, path):
    types = trained.adata.obs["cell_type"]
    ends = [(types == f"type_{number}").to_numpy() for number in (0, 1)]
    way = trained.interpolate(*ends, n_steps=9, path=path)
    assert way.shape == (9, 120)
    # the medoids are of their types, and so are the genes there
    nearest = types.loc[way.obs["nearest_cell"].iloc[[0, -1]]]
    assert nearest.tolist() == ["type_0", "type_1"]
    assert way.obs["distance"].iloc[[0, -1]].max() < 1e-6
    means = [np.asarray(trained.adata.X[end].mean(axis=0)).ravel() for end in ends]
    real = np.log2((means[1] + 0.1) / (means[0] + 0.1))
    assert np.corrcoef(real, way.var["log2_fold_change"])[0, 1] > 0.9
    assert way.var["is_switch"].any()
    total = np.median(np.asarray(trained.adata.X.sum(axis=1)))
    np.testing.assert_allclose(np.asarray(way.X).sum(axis=1), total, rtol=1e-3)
    assert (way.layers["std"] > 0).all()
    assert way.obs["p_value"].between(0, 1).all()
    steps = np.linalg.norm(np.diff(way.obsm["z"], axis=0), axis=1)
    assert steps.max() < 1.2 * steps.min()


def test_the_path_along_the_density_is_where_more_cells_are(trained):
    types = trained.adata.obs["cell_type"]
    ends = [types.index[types == f"type_{number}"] for number in (0, 2)]
    ways = {path: trained.interpolate(*ends, path=path).obs["log_density"] for path in PATHS}
    assert ways["density"].min() > ways["straight"].min()
    assert ways["density"].mean() > ways["straight"].mean()


def test_ends_in_every_form(trained):
    names, z = trained.adata.obs_names, trained.get_latent_representation()
    by_name = trained.interpolate(names[4], names[9], n_steps=3)
    for start, end in ((4, 9), (z[4], z[9]), ([4], [9])):
        other = trained.interpolate(start, end, n_steps=3)
        np.testing.assert_allclose(other.obsm["z"], by_name.obsm["z"], rtol=1e-4, atol=1e-5)
    bigger = trained.interpolate(4, 9, n_steps=3, library_size=1e4, batch="batch_1")
    assert np.asarray(bigger.X).sum(axis=1) == pytest.approx(1e4)
    other = trained.interpolate(4, 9, n_steps=3, library_size=1e4, batch="batch_0")
    assert np.abs(np.asarray(bigger.X) - np.asarray(other.X)).max() > 1e-3


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"path": "scenic"}, "path must be one of"),
        ({"n_steps": 1}, "both ends"),
        ({"n_steps": 0}, "n_steps"),
        ({"end": 0}, "same position"),
        ({"batch": "batch_9"}, "no batch 'batch_9'"),
        ({"library_size": 0}, "positive"),
        ({"end": np.zeros(3)}, r"\(n, 5\)"),
        ({"end": np.zeros((2, 5))}, "`end` is an array of 2 latent positions"),
    ],
)
def test_ways_that_are_none_are_refused(trained, asked, message):
    with pytest.raises(ValueError, match=message):
        trained.interpolate(**{"start": 0, "end": 1} | asked)


KINDS = {
    "logistic normal": ({}, {"latent_distribution": "ln"}),
    "deterministic": ({}, {"latent_distribution": "deterministic"}),
    "latent size": ({"batch_key": "batch"}, {"use_observed_lib_size": False}),
    "size factor": ({"size_factor_key": "size"}, {}),
    "covariates": (
        {"categorical_covariate_keys": ["donor"], "continuous_covariate_keys": ["age"]},
        {"encode_covariates": True},
    ),
    "vamp": ({}, {"prior": "vamp"}),
}


@pytest.mark.parametrize("kind", mostly_slow(KINDS, {"logistic normal"}))
def test_every_kind_of_model_has_a_map_that_repeats(counts, kind):
    setup, arguments = KINDS[kind]
    BetaVI.setup_anndata(counts, **setup)
    model = BetaVI(counts, n_latent=4, **arguments)
    model.train(**BRIEF | {"max_epochs": 5})
    state = torch.get_rng_state()
    one, two = (model.interpolate(0, 1, n_steps=5, path="density") for _ in range(2))
    np.testing.assert_array_equal(one.X, two.X)
    np.testing.assert_array_equal(one.layers["std"], two.layers["std"])
    assert torch.equal(torch.get_rng_state(), state)
    assert np.isfinite(one.X).all()
    assert model.find_holes().n_vars == counts.n_vars
    # what is drawn and where is the same place
    np.testing.assert_allclose(
        model.support(latent=one.obsm["z"])["log_density"],
        one.obs["log_density"],
        rtol=1e-3,
        atol=0.01,
    )
    assert model.generate(latent=one.obsm["z"], **QUIET).n_obs == 5
    assert model.support(**QUIET)["p_value"].between(0, 1).all()
    if kind == "deterministic":
        assert (one.layers["std"] == 0).all()
        with pytest.raises(ValueError, match="not trained towards a prior"):
            model.archetype()
    else:
        assert model.archetype().n_obs == 3
    totals = np.asarray(model.interpolate(0, 1, n_steps=3, library_size=200.0).X).sum(axis=1)
    np.testing.assert_allclose(totals, 200, rtol=1e-3)


def test_a_query_has_a_map(counts):
    BetaVI.setup_anndata(counts, batch_key="batch")
    reference = BetaVI(counts, n_latent=4)
    reference.train(**BRIEF)
    query = simulate_counts(n_cells=200, n_genes=40, seed=1)
    query.obs["batch"] = "new"
    model = BetaVI.load_query_data(query, reference)
    model.train(**BRIEF)
    assert set(model.generate(20, batch="new", **QUIET).obs["batch"]) == {"new"}
    assert model.support(**QUIET).shape == (200, 4)
    assert model.interpolate(0, 1, n_steps=3).n_obs == 3


def test_the_archetype_the_mean_and_the_medoid(trained):
    found = trained.archetype(library_size=1000)
    assert found.obs_names.tolist() == ["archetype", "mean", "medoid"]
    np.testing.assert_allclose(np.asarray(found.X).sum(axis=1), 1000, rtol=1e-3)
    np.testing.assert_allclose(found.obsm["z"][0], 0, atol=1e-6)
    profile = trained.adata.X / trained.adata.X.sum(axis=1)
    mean = 1000 * np.asarray(profile.mean(axis=0)).ravel()
    np.testing.assert_allclose(np.asarray(found.X)[1], mean, rtol=1e-4, atol=1e-4)
    assert found.obs["distance"].iloc[2] < 1e-6
    # what the decoder makes of z = 0, in both batches
    z = torch.zeros(1, 5)
    with torch.inference_mode():
        decoded = [
            trained.module.generative(
                z, {"X": torch.zeros(1, 1)}, torch.full((1, 1), code), y=torch.zeros(1, 1)
            )["px"]["X"]
            for code in (0, 1)
        ]
    means = [px.mean[0].numpy() for px in decoded]
    expected = sum(mean / mean.sum() for mean in means) / 2
    np.testing.assert_allclose(np.asarray(found.X)[0], 1000 * expected, rtol=1e-3)
    one = trained.archetype(batch="batch_0", library_size=1000)
    assert not np.allclose(one.X, found.X)


@pytest.mark.slow
def test_the_map_of_a_joint_model(tmp_path):
    mdata = simulate_multiome(n_cells=300, seed=0, missing={"adt": 0.3})
    JointVI.setup_mudata(mdata, {"rna": "zinb", "adt": "nb_mixture", "atac": "bernoulli"})
    model = JointVI(mdata, n_latent=4)
    model.train(**BRIEF)
    way = model.interpolate(0, 1, n_steps=4, library_size={"rna": 500.0}, **QUIET)
    np.testing.assert_allclose(np.asarray(way["rna"].X).sum(axis=1), 500, rtol=1e-3)
    assert (np.asarray(way["atac"].X) <= 1).all()
    assert "is_switch" in way["adt"].var
    found = model.archetype(**QUIET)
    has = mdata["adt"].X.mean(axis=0)
    np.testing.assert_allclose(found["adt"].X[1], np.asarray(has).ravel(), rtol=1e-4)
    assert model.find_holes(**QUIET).n_vars == found.n_vars
    with pytest.raises(ValueError, match="by modality"):
        model.archetype(library_size=500.0)
    betavi.pl.latent_path(way["adt"], 5)
    kept = model.generate(30, seed=0, **QUIET)
    for ending, read in ((".h5mu", mudata.read_h5mu), (".zarr", mudata.read_zarr)):
        assert model.generate(30, seed=0, out=tmp_path / f"new{ending}", **QUIET) is None
        # zarr makes a file of each piece
        assert len(list((tmp_path / f"new{ending}").rglob("*"))) < 400
        found = read(tmp_path / f"new{ending}")
        for name in model.modalities:
            assert (found[name].X != kept[name].X).nnz == 0
        assert found.obs["near_cell"].tolist() == kept.obs["near_cell"].tolist()
        np.testing.assert_array_equal(found.obsm["z"], kept.obsm["z"])
        assert len(model.support(found, **QUIET)) == 30


def test_what_is_uncertain_does_not_depend_on_the_number_of_steps(trained):
    few, many = (trained.interpolate(4, 9, n_steps=steps, **QUIET) for steps in (3, 129))
    np.testing.assert_allclose(few.layers["std"], many.layers["std"][[0, 64, 128]], rtol=1e-3)


def test_a_path_between_batches_is_told(counts):
    BetaVI.setup_anndata(counts, batch_key="batch")
    model = BetaVI(counts, n_latent=3)
    model.train(**BRIEF)
    one, other = (
        (counts.obs["batch"] == name).to_numpy() for name in counts.obs["batch"].unique()[:2]
    )
    with pytest.warns(UserWarning, match="No batch has cells of both ends"):
        model.interpolate(one, other, n_steps=2, **QUIET)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="No batch has cells")
        model.interpolate(one, other, n_steps=2, batch=counts.obs["batch"].iloc[0], **QUIET)
        model.interpolate(one | other, other, n_steps=2, **QUIET)
