"""Support, paths, the archetype and holes of a model."""

from __future__ import annotations

import re
import warnings

import anndata
import mudata
import numpy as np
import pytest
import scvi
import torch
from scipy import stats
from sklearn.metrics import roc_auc_score

import betavi
from betavi import BetaVI, JointVI
from betavi.datasets import simulate_counts, simulate_multiome
from betavi.diagnostics import thin
from betavi.likelihoods import LIKELIHOODS
from betavi.model.generation.interpolate import PATHS
from betavi.model.support.calibration import ENOUGH_KNOWN, _advice
from tests.conftest import BRIEF

QUIET = {"show_progress": False}


@pytest.fixture(scope="module")
def whole():
    return simulate_counts(n_cells=2400, n_genes=120, n_types=4, n_batches=2, seed=3)


@pytest.fixture(scope="module")
def trained(whole):
    """A model that has seen three of four types, and held cells of these out twice."""
    scvi.settings.seed = 0
    torch.set_num_threads(1)
    adata = whole[whole.obs["cell_type"] != "type_3"].copy()
    BetaVI.setup_anndata(adata, batch_key="batch")
    model = BetaVI(adata, n_latent=5)
    model.train(50, enable_progress_bar=False, train_size=0.6, validation_size=0.2)
    return model


@pytest.mark.parametrize("kept", [1.0, 0.5])
def test_of_possible_cells_one_in_twenty_is_called(trained, kept):
    some = trained.adata[trained.test_indices].copy()
    if kept < 1:
        some.X = thin(some.X, 1 - kept, seed=0).kept
    found = trained.support(some, **QUIET)
    # of 360 cells, judged by 360 others
    assert 0.015 < (found["p_value"] < 0.05).mean() < 0.085
    assert found.index.equals(some.obs_names)


def test_a_type_that_was_not_seen_is_strange(trained, whole):
    seen = trained.support(indices=trained.test_indices, **QUIET)
    unseen = trained.support(whole[whole.obs["cell_type"] == "type_3"].copy(), **QUIET)
    truth = np.repeat([0, 1], [len(seen), len(unseen)])
    scores = np.concatenate([seen["strangeness"], unseen["strangeness"]])
    assert roc_auc_score(truth, scores) > 0.9
    assert (unseen["p_value"] < 0.05).mean() > 3 * (seen["p_value"] < 0.05).mean()


def test_cells_whose_genes_are_shuffled_are_strange_though_of_the_same_total(trained):
    some = trained.adata[trained.test_indices].copy()
    rng = np.random.default_rng(0)
    dense = some.X.toarray()
    some.X = np.array([rng.permutation(row) for row in dense])
    found = trained.support(some, **QUIET)
    assert (found["p_value"] < 0.01).mean() > 0.9


def test_what_is_explained_worse_is_stranger(trained):
    found = trained.support(indices=trained.test_indices, **QUIET)
    losses = trained.get_reconstruction_error(indices=trained.test_indices, return_mean=False)[
        "reconstruction_loss"
    ]
    depth = np.log(np.asarray(trained.adata.X[trained.test_indices].sum(axis=1)).ravel())
    slope = np.polyfit(depth, np.asarray(losses), 1)
    excess = np.asarray(losses) - np.polyval(slope, depth)
    strange = found["strangeness"].rank().to_numpy()
    assert np.corrcoef(strange, excess)[0, 1] > 0.15


def test_positions(trained):
    z = trained.get_latent_representation()
    held_out = trained.support(latent=z[trained.test_indices])
    assert held_out.columns.tolist() == ["log_density", "p_value"]
    assert 0.015 < (held_out["p_value"] < 0.05).mean() < 0.085
    far = trained.support(latent=z[:5] + 30)
    assert (far["p_value"] < 0.01).all()
    cells = trained.support(indices=trained.test_indices, **QUIET)
    np.testing.assert_allclose(held_out["log_density"], cells["log_density"], rtol=1e-4, atol=1e-3)


def test_support_repeats_and_leaves_the_object_alone(trained):
    before = trained.adata.copy()
    state = torch.get_rng_state()
    one, two = (trained.support(indices=[3, 1], **QUIET) for _ in range(2))
    assert one.equals(two)
    assert one.index.tolist() == trained.adata.obs_names[[3, 1]].tolist()
    assert torch.equal(torch.get_rng_state(), state)
    assert (trained.adata.X != before.X).nnz == 0
    assert trained.adata.obs.equals(before.obs)


def test_a_p_value_is_of_the_cell_and_not_of_its_company(trained):
    cells = trained.test_indices
    together = trained.support(indices=cells, **QUIET)
    reversed_ = trained.support(indices=cells[::-1], **QUIET).loc[together.index]
    np.testing.assert_allclose(reversed_, together, rtol=1e-3, atol=1e-3)
    alone = trained.support(indices=cells[-1:], **QUIET)
    np.testing.assert_allclose(alone, together.iloc[-1:], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_no_likelihood_lets_cells_depend_on_others(counts, likelihood):
    """A library size that is inferred is taken as expected, and not drawn."""
    if likelihood == "bernoulli":
        counts.X = (counts.X > 0).astype(np.float32)
    BetaVI.setup_anndata(counts, batch_key="batch")
    sized = {} if likelihood == "bernoulli" else {"use_observed_lib_size": False}
    model = BetaVI(counts, n_latent=3, gene_likelihood=likelihood, **sized)
    model.train(**BRIEF)
    together = model.support(**QUIET)
    alone = model.support(indices=[counts.n_obs - 1], **QUIET)
    assert np.isfinite(together).all(axis=None)
    np.testing.assert_allclose(alone, together.iloc[-1:], rtol=1e-3, atol=1e-2)


def test_p_values_of_possible_cells_are_uniform_up_to_the_end(trained):
    found = trained.support(indices=trained.test_indices, **QUIET)["p_value"]
    # of 360 cells beside 360: at 0.1, both draws together are this far apart in one of thirty
    assert stats.kstest(found, "uniform").statistic < 0.11
    assert (found > 0.999).mean() < 0.02


def test_the_density_is_fitted_once_and_again_after_training(counts):
    BetaVI.setup_anndata(counts)
    model = BetaVI(counts, n_latent=3)
    model.train(**BRIEF)
    density = model.latent_density()
    assert model.latent_density() is density
    model.train(**BRIEF)
    assert model.latent_density() is not density


def test_density_and_support_at_any_beta(counts):
    BetaVI.setup_anndata(counts)
    model = BetaVI(counts, n_latent=3, beta=(0.1, 10.0))
    model.train(**BRIEF)
    low, high = (model.support(beta=beta, **QUIET)["log_density"] for beta in (0.1, 10.0))
    assert not np.allclose(low, high)


def test_what_cannot_be_judged_is_refused(trained, counts):
    z = trained.get_latent_representation()
    with pytest.raises(ValueError, match="Cells or positions"):
        trained.support(trained.adata, latent=z)
    with pytest.raises(ValueError, match=r"\(n, 5\)"):
        trained.support(latent=z[:, :2])
    BetaVI.setup_anndata(counts)
    model = BetaVI(counts, latent_distribution="ln", n_latent=3)
    model.train(**BRIEF)
    with pytest.raises(ValueError, match="before the softmax"):
        model.support(latent=model.get_latent_representation())
    mean, variance = model.get_latent_representation(return_dist=True)
    assert len(model.support(latent=mean)) == counts.n_obs
    counts.obsm.update({"X_latent_qzm": mean, "X_latent_qzv": variance})
    model.minify_adata()
    with pytest.raises(ValueError, match="minified"):
        model.support()
    assert len(model.support(latent=mean)) == counts.n_obs


def test_too_few_cells_held_out_are_said(counts):
    BetaVI.setup_anndata(counts)
    model = BetaVI(counts)
    model.train(**BRIEF)
    with pytest.warns(UserWarning, match="held too few cells out"):
        model.support(**QUIET)


def test_joint_support():
    """Proteins that belong to other cells are strange, and so is RNA."""
    mdata = simulate_multiome(n_cells=1500, seed=0, missing={"adt": 0.2})
    JointVI.setup_mudata(mdata, {"rna": "zinb", "adt": "nb_mixture", "atac": "bernoulli"})
    model = JointVI(mdata, n_latent=5)
    model.train(30, enable_progress_bar=False, train_size=0.6, validation_size=0.2)
    usual = model.support(indices=model.test_indices, **QUIET)
    assert 0.01 < (usual["p_value"] < 0.05).mean() < 0.1
    strange = mdata.copy()
    rng = np.random.default_rng(0)
    strange["rna"].X = np.array([rng.permutation(row) for row in strange["rna"].X.toarray()])
    found = model.support(strange, **QUIET)
    assert (found["p_value"] < 0.05).mean() > 0.6
    assert found.index.equals(strange.obs_names)
    assert model.support(latent=np.zeros(5)).shape == (1, 2)


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
        ({"n_steps": 1}, "two ends"),
        ({"n_steps": 0}, "n_steps"),
        ({"end": 0}, "same place"),
        ({"batch": "batch_9"}, "no batch"),
        ({"library_size": 0}, "positive"),
        ({"end": np.zeros(3)}, r"\(n, 5\)"),
        ({"end": np.zeros((2, 5))}, "end is one position, not 2"),
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


@pytest.mark.parametrize("kind", KINDS)
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
        with pytest.raises(ValueError, match="not trained towards any prior"):
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


def test_a_call_that_fails_leaves_another_object_as_it_was(trained, whole):
    other = whole[:50].copy()
    before = other.obs.columns.tolist(), sorted(other.uns)
    with pytest.raises(IndexError, match="indices"):
        trained.support(other, indices=[99], **QUIET)
    with pytest.raises(ValueError, match="names no cell"):
        trained.support(other, indices=[], **QUIET)
    assert (other.obs.columns.tolist(), sorted(other.uns)) == before


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
                z, torch.zeros(1, 1), torch.full((1, 1), code), None, None, None, torch.zeros(1, 1)
            )["px"]
            for code in (0, 1)
        ]
    means = [px.mean[0].numpy() for px in decoded]
    expected = sum(mean / mean.sum() for mean in means) / 2
    np.testing.assert_allclose(np.asarray(found.X)[0], 1000 * expected, rtol=1e-3)
    one = trained.archetype(batch="batch_0", library_size=1000)
    assert not np.allclose(one.X, found.X)


def test_holes_between_types():
    scvi.settings.seed = 0
    adata = simulate_counts(n_cells=1500, n_genes=100, n_types=4, spread_within_type=0.1, seed=0)
    BetaVI.setup_anndata(adata)
    trained = BetaVI(adata, n_latent=2)
    trained.train(40, enable_progress_bar=False)
    found = trained.find_holes()
    assert found.n_obs >= 1
    assert (found.obs["depth"] >= 0.05).all()
    assert (found.obs["p_value"] < 0.02).all()
    assert (found.obs["share"].diff().dropna() <= 0).all()
    types = trained.adata.obs["cell_type"]
    first = found.obs.iloc[0]
    assert types.loc[first["start"]] != types.loc[first["end"]]
    with pytest.raises(ValueError, match="level is a share"):
        trained.find_holes(level=2)


def test_no_holes_in_cells_of_one_kind():
    scvi.settings.seed = 0
    adata = simulate_counts(n_cells=800, n_genes=60, n_types=1, seed=0)
    BetaVI.setup_anndata(adata)
    model = BetaVI(adata, n_latent=3)
    model.train(30, enable_progress_bar=False)
    found = model.find_holes()
    assert found.shape == (0, 60)


def test_a_loaded_model_says_the_same(trained, tmp_path):
    trained.save(tmp_path / "model")
    loaded = BetaVI.load(tmp_path / "model", adata=trained.adata)
    z = trained.get_latent_representation()[:20]
    np.testing.assert_allclose(loaded.support(latent=z), trained.support(latent=z), rtol=1e-3)


def test_of_real_cells_one_in_twenty_is_called(real):
    adata = real("pancreas_3696x2000.h5ad")
    BetaVI.setup_anndata(adata)
    scvi.settings.seed = 0
    model = BetaVI(adata)
    model.train(10, enable_progress_bar=False, train_size=0.7, validation_size=0.15)
    for kept in (1.0, 0.5):
        counts = adata.X[model.test_indices]
        counts = counts if kept == 1 else thin(counts, 1 - kept, seed=0).kept
        some = anndata.AnnData(counts, obs=adata.obs.iloc[model.test_indices], var=adata.var)
        assert 0.02 < (model.support(some, **QUIET)["p_value"] < 0.05).mean() < 0.08


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


def test_joint_cells_are_generated_into_the_layers_the_model_reads(tmp_path):
    mdata = simulate_multiome(n_cells=120, seed=0)
    mdata["rna"].layers["counts"] = mdata["rna"].X.copy()
    mdata["rna"].X = mdata["rna"].X * 0
    JointVI.setup_mudata(mdata, {"rna": "nb", "adt": "nb_mixture"}, layers={"rna": "counts"})
    model = JointVI(mdata, n_latent=3)
    model.train(**BRIEF)
    kept = model.generate(20, seed=0, **QUIET)
    assert kept["rna"].layers["counts"].sum() > 0
    model.generate(20, seed=0, out=tmp_path / "new.h5mu", **QUIET)
    found = mudata.read_h5mu(tmp_path / "new.h5mu")
    assert (found["rna"].layers["counts"] != kept["rna"].layers["counts"]).nnz == 0
    assert "counts" not in found["adt"].layers
    assert len(model.support(found, **QUIET)) == 20


def test_shallow_cells_are_judged_as_shallow_where_factors_say_so(whole):
    adata = whole.copy()
    adata.obs["size"] = np.asarray(adata.X.sum(axis=1)).ravel() / 1000
    BetaVI.setup_anndata(adata, size_factor_key="size")
    scvi.settings.seed = 0
    model = BetaVI(adata, n_latent=5)
    model.train(30, enable_progress_bar=False, train_size=0.6, validation_size=0.2)
    some = adata[model.test_indices].copy()
    some.X = thin(some.X, 0.75, seed=0).kept
    some = some[np.asarray(some.X.sum(axis=1)).ravel() > 0].copy()
    some.obs["size"] /= 4
    mixed = some.copy()
    rng = np.random.default_rng(0)
    mixed.X = np.array([rng.permutation(row) for row in some.X.toarray()])
    usual, strange = (
        (model.support(cells, **QUIET)["p_value"] < 0.05).mean() for cells in (some, mixed)
    )
    assert 0.01 < usual < 0.09
    assert strange > 3 * usual


def test_what_is_uncertain_does_not_depend_on_the_number_of_steps(trained):
    few, many = (trained.interpolate(4, 9, n_steps=steps, **QUIET) for steps in (3, 129))
    np.testing.assert_allclose(few.layers["std"], many.layers["std"][[0, 64, 128]], rtol=1e-3)


def test_cells_beyond_what_was_calibrated_are_told(trained):
    some = trained.adata[trained.test_indices[:20]].copy()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        usual = trained.support(some, **QUIET)
    some.X = some.X.toarray()
    some.X[3] *= 50
    some.X[5] = 0
    deep, empty = some.obs_names[[3, 5]]
    with (
        pytest.warns(UserWarning, match=f"judged as if they were not: {deep!r}"),
        pytest.warns(UserWarning, match=f"without counts have no p-value: {empty!r}"),
    ):
        found = trained.support(some, **QUIET)
    judged = ["excess", "strangeness", "p_value"]
    assert found.loc[empty, judged].isna().all()
    others = found.index.drop([deep, empty])
    np.testing.assert_allclose(found.loc[others, judged], usual.loc[others, judged], rtol=1e-3)


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


@pytest.mark.parametrize(
    ("n_cells", "advice"),
    [(778, r"train\(train_size=0.87\)"), (150, "which 150 cells cannot spare")],
)
def test_the_advice_to_hold_cells_out_can_be_followed(n_cells, advice):
    assert re.search(advice, _advice(n_cells))
    assert n_cells == 150 or (1 - 0.87) * n_cells >= ENOUGH_KNOWN


def test_a_bar_changes_nothing(trained):
    one, two = (trained.support(indices=[3, 1], show_progress=shown) for shown in (False, True))
    assert one.equals(two)
    densities = [trained._fitted_density(trained.adata, shown) for shown in (False, True)]
    np.testing.assert_array_equal(densities[0].means, densities[1].means)
