"""What a joint model does where objects, words and numbers are out of the ordinary."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
import scvi
import torch
from sklearn.neighbors import KNeighborsRegressor

from betavi import JointVI
from betavi._mudata import assembled, copied
from betavi.datasets import simulate_multiome
from betavi.likelihoods import LIKELIHOODS
from betavi.nn import LATENTS

PAIR = {"rna": "nb", "adt": "nb_mixture"}
QUIET = {"show_progress": False}
BRIEF = {"max_epochs": 2, "enable_progress_bar": False}


def fitted(mdata, likelihoods=None, setup=None, epochs=2, **kwargs):
    JointVI.setup_mudata(mdata, likelihoods or PAIR, **(setup or {}))
    model = JointVI(mdata, **{"n_latent": 4, "n_hidden": 16} | kwargs)
    model.train(epochs, enable_progress_bar=False)
    return model


@pytest.fixture
def mosaic():
    return simulate_multiome(n_cells=200, n_peaks=0, missing={"adt": 0.5, "rna": 0.3}, seed=1)


# -- cells stay where they are -------------------------------------------------------------------


def test_answers_are_in_the_order_of_a_view(mosaic):
    model = fitted(mosaic)
    z, order = model.get_latent_representation(), np.random.default_rng(0).permutation(200)
    for ask in (lambda: mosaic[order], lambda: copied(mosaic[order])):
        view = ask()
        names = view.obs_names.copy()
        np.testing.assert_allclose(
            model.get_latent_representation(view), z[order], rtol=1e-3, atol=1e-4
        )
        assert (view.obs_names == names).all()
    view = mosaic[order]
    names = view.obs_names.copy()
    JointVI.setup_mudata(view, PAIR)
    assert (view.obs_names == names).all()


@pytest.mark.parametrize("names", list(permutations(["rna", "adt", "atac"])))
def test_a_query_keeps_its_order_whatever_that_of_its_modalities(names):
    likelihoods = PAIR | {"atac": "bernoulli"}
    reference = fitted(simulate_multiome(n_cells=100, n_peaks=30), likelihoods)
    cells = simulate_multiome(n_cells=90, n_peaks=30, missing={"adt": 0.5, "rna": 0.3}, seed=2)
    order = np.random.default_rng(0).permutation(90)
    query = copied(assembled({name: cells[name].copy() for name in names})[cells.obs_names[order]])
    prepared = JointVI.prepare_query_mudata(query, reference)
    assert list(prepared.obs_names) == list(query.obs_names)
    np.testing.assert_allclose(
        reference.get_latent_representation(prepared),
        reference.get_latent_representation(cells)[order],
        rtol=1e-3,
        atol=1e-4,
    )


def test_a_modality_that_was_changed_behind_the_back_is_refused(mosaic):
    model = fitted(mosaic)
    mosaic.mod["adt"] = mosaic["adt"][::-1].copy()
    for ask in (model.get_latent_representation, lambda: model.get_latent_representation(mosaic)):
        with pytest.raises(ValueError, match=r"mdata.update\(\)"):
            ask()


# -- counts are found where they are -------------------------------------------------------------


def test_every_model_finds_counts_that_were_moved(mosaic, tmp_path):
    first, second = fitted(mosaic), fitted(mosaic, epochs=1)
    second.save(tmp_path / "second")
    before = second.get_latent_representation()
    first.denoise(layer_added=None, **QUIET)
    np.testing.assert_array_equal(second.get_latent_representation(), before)
    loaded = JointVI.load(tmp_path / "second", adata=mosaic)
    np.testing.assert_allclose(loaded.get_latent_representation(), before, rtol=1e-4, atol=1e-5)
    # as of counts, and with the layer it was told
    JointVI.setup_mudata(mosaic, PAIR)
    # others still have theirs in X
    other = simulate_multiome(n_cells=50, n_peaks=0, seed=3)
    assert np.isfinite(first.get_latent_representation(other)).all()
    query = JointVI.prepare_query_mudata(other, first)
    JointVI.load_query_data(query, first).train(**BRIEF)
    first.minify_mudata(**QUIET)
    del mosaic["rna"].layers["counts"]
    with pytest.raises(KeyError, match=r"layers\['counts'\] is missing"):
        second.get_latent_representation()


def test_a_query_that_was_denoised_and_lacks_features_keeps_its_counts(mosaic):
    reference = fitted(mosaic)
    cells = simulate_multiome(n_cells=80, n_peaks=0, seed=3)
    plain = assembled({"rna": cells["rna"][:, :190].copy(), "adt": cells["adt"].copy()})
    expected = reference.get_latent_representation(JointVI.prepare_query_mudata(plain, reference))
    reference.denoise(cells, layer_added=None, **QUIET)
    part = assembled({"rna": cells["rna"][:, :190].copy(), "adt": cells["adt"].copy()})
    found = reference.get_latent_representation(JointVI.prepare_query_mudata(part, reference))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_a_batch_that_lacks_features_is_denoised_in_place_or_not_at_all():
    cells = simulate_multiome(n_cells=300, n_peaks=0, n_batches=2)
    model = fitted(cells, setup={"batch_key": "batch"})
    other = cells.copy()
    is_second = (other.obs["batch"] == "batch_1").to_numpy()
    x = other["rna"].X.toarray()
    x[np.ix_(is_second, np.arange(60))] = 0
    other["rna"].X = x
    latent = model.get_latent_representation(other)
    model.denoise(other, layer_added=None, transform_batch="batch_0", estimate="mean", **QUIET)
    np.testing.assert_array_equal(other["rna"].layers["counts"], x)
    np.testing.assert_array_equal(model.get_latent_representation(other), latent)


# -- sizes ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def deep_types():
    """Cells of which some types have five times the RNA of the others."""
    mdata = simulate_multiome(n_cells=900, n_peaks=0, seed=4)
    types = mdata.obs["cell_type"].cat.codes.to_numpy()
    rng = np.random.default_rng(0)
    kept = np.where(types % 2 == 0, 1.0, 0.2)[:, None]
    x = rng.binomial(mdata["rna"].X.toarray().astype(int), kept).astype(np.float32)
    mdata["rna"].X = x
    # that of each test is set after what a module shares is made
    scvi.settings.seed = 0
    model = fitted(mdata[:700].copy(), epochs=60, n_hidden=32, n_latent=6)
    return mdata, model


@pytest.mark.slow
def test_intervals_know_the_size_of_each_type(deep_types):
    mdata, model = deep_types
    new = mdata[700:].copy()
    found = model.translate("adt", "rna", new, n_samples=100, **QUIET)
    truth = new["rna"].X
    often = truth.mean(axis=0) > 1
    inside = (truth >= found.layers["lower"]) & (truth <= found.layers["upper"])
    for name, cells in new.obs.groupby("cell_type", observed=True).indices.items():
        assert inside[cells][:, often].mean() == pytest.approx(0.9, abs=0.1), name
    totals = truth.sum(axis=1), found.X.sum(axis=1)
    assert np.corrcoef(*np.log(totals))[0, 1] > 0.6


def test_generated_cells_have_sizes_that_go_with_their_types(deep_types):
    mdata, model = deep_types
    new = model.generate(2400, seed=0, **QUIET)
    mine = np.log(np.asarray(new["rna"].X.sum(axis=1)).ravel() + 1)
    real = np.log(mdata["rna"].X.sum(axis=1) + 1)
    assert mine.std() == pytest.approx(real.std(), rel=0.3)
    # sizes that are drawn whatever z is score below zero
    knn = KNeighborsRegressor(15).fit(new.obsm["z"][:1600], mine[:1600])
    assert knn.score(new.obsm["z"][1600:], mine[1600:]) > 0.2


def test_cells_of_a_batch_have_its_covariates_and_can_be_read_again():
    mdata = simulate_multiome(n_cells=200, n_peaks=0, n_batches=2)
    is_first = (mdata.obs["batch"] == "batch_0").to_numpy()
    mdata.obs["lane"] = mdata.obs["batch"]
    mdata.obs["age"] = np.where(is_first, 1.0, 2.0)
    mdata.obs["donor"] = np.where(is_first, "a", "b")
    mdata["rna"].X = (mdata["rna"].X.toarray() * np.where(is_first, 1, 8)[:, None]).astype("f4")
    setup = {
        "batch_key": "lane",
        "continuous_covariate_keys": ["age"],
        "categorical_covariate_keys": ["donor"],
    }
    model = fitted(mdata, setup=setup, epochs=10)
    totals = {}
    for batch, donor in (("batch_0", "a"), ("batch_1", "b")):
        new = model.generate(100, batch=batch, seed=0, **QUIET)
        assert set(new.obs["lane"]) == {batch}
        assert set(new.obs["donor"]) == {donor}
        assert new.obs["age"].nunique() == 1
        totals[batch] = np.median(np.asarray(new["rna"].X.sum(axis=1)))
        assert np.isfinite(model.get_latent_representation(new)).all()
    assert totals["batch_1"] > 4 * totals["batch_0"]


@pytest.mark.slow
@pytest.mark.parametrize("is_binary", [True, False])
def test_probabilities_of_detection_are_calibrated(is_binary):
    mdata = simulate_multiome(n_cells=600, n_proteins=0, n_peaks=150, seed=5)
    x = mdata["atac"].X.toarray()
    # many counts where there are any, so that the size of binary values differs from theirs
    mdata["atac"].X = (x > 0).astype("f4") if is_binary else x * 3
    model = fitted(mdata, {"rna": "nb", "atac": "bernoulli"}, epochs=40, n_hidden=32)
    model.denoise(modalities="atac", **QUIET)
    found, truth = mdata["atac"].layers["denoised"], x > 0
    assert found.mean() == pytest.approx(truth.mean(), rel=0.05)
    for low, high in ((0.1, 0.4), (0.4, 0.7), (0.7, 1.0)):
        some = (found > low) & (found <= high)
        assert truth[some].mean() == pytest.approx(found[some].mean(), abs=0.08)


@pytest.mark.parametrize("word", LIKELIHOODS)
def test_generated_cells_can_be_read_whatever_the_likelihood(word):
    mdata = simulate_multiome(n_cells=100, n_peaks=0, n_proteins=0)
    model = fitted(mdata, {"rna": word})
    new = model.generate(50, seed=0, **QUIET)
    assert np.isfinite(model.get_latent_representation(new)).all()


# -- words and numbers ---------------------------------------------------------------------------


@pytest.mark.parametrize("word", LATENTS)
def test_every_latent_variable_is_asked(mosaic, word):
    model = fitted(mosaic, latent_distribution=word, fusion="poe")
    mean, variance = model.get_latent_representation(return_dist=True)
    assert mean.shape == variance.shape == (200, 4)
    assert (variance == 0).all() if word == "deterministic" else (variance > 0).all()
    assert model.translate("rna", "adt", **QUIET).n_vars == 15
    model.denoise(**QUIET)
    # the mean of a logistic normal is that of draws, as in SCVI
    torch.manual_seed(0)
    before = model.get_latent_representation()
    model.minify_mudata(**QUIET)
    torch.manual_seed(0)
    np.testing.assert_allclose(model.get_latent_representation(), before, rtol=1e-3, atol=1e-5)


def test_the_rule_of_one_expert_is_of_one_modality(mosaic):
    JointVI.setup_mudata(mosaic, PAIR)
    for word in ("single", "sum"):
        with pytest.raises(ValueError, match="'poe', 'moe', 'mopoe', 'mvtcae', not"):
            JointVI(mosaic, fusion=word)
    alone = simulate_multiome(n_cells=60, n_proteins=0, n_peaks=0)
    fitted(alone, {"rna": "nb"}, fusion="single")


def test_a_saved_model_is_loaded_without_its_object(mosaic, tmp_path):
    model = fitted(mosaic)
    model.save(tmp_path / "model", save_anndata=True)
    loaded = JointVI.load(tmp_path / "model", adata=False)
    before = model.get_latent_representation()
    found = loaded.get_latent_representation(mosaic.copy())
    np.testing.assert_allclose(found, before, rtol=1e-4, atol=1e-5)
    empty = JointVI.load(tmp_path / "model", adata=False)
    for ask in (empty.get_latent_representation, lambda: empty.generate(5)):
        with pytest.raises(ValueError, match="without an object"):
            ask()
    model.minify_mudata(**QUIET)
    minified = model.adata.copy()
    model.save(tmp_path / "minified")
    for folder in ("model", "minified"):
        without = JointVI.load(tmp_path / folder, adata=False)
        with pytest.raises(ValueError, match="is minified"):
            without.get_latent_representation(minified.copy())
    with pytest.raises(ValueError, match="setup_mudata"):
        JointVI(simulate_multiome(n_cells=20, n_peaks=0))
    with pytest.raises(TypeError, match="must be a MuData"):
        JointVI()


@pytest.mark.slow
def test_cells_are_named_by_number_or_by_mask(mosaic):
    model = fitted(mosaic)
    mask = np.arange(200) % 2 == 0
    numbers = np.flatnonzero(mask)
    torch.manual_seed(0)
    by_mask = model.translate("rna", "adt", indices=mask, **QUIET)
    torch.manual_seed(0)
    by_number = model.translate("rna", "adt", indices=numbers, **QUIET)
    np.testing.assert_array_equal(by_mask.X, by_number.X)
    assert list(by_mask.obs_names) == list(by_number.obs_names)
    table = model.predictability("rna", "adt", indices=np.ones(200, bool), **QUIET)
    assert len(table) == 15
    assert len(model.diagnose(indices=np.ones(200, bool), **QUIET).dimensions) == 4


def test_questions_that_cannot_be_answered_say_why(mosaic):
    JointVI.setup_mudata(mosaic, PAIR)
    model = JointVI(mosaic, n_latent=4)
    with pytest.raises(RuntimeError, match="train"):
        model.predictability("rna", "adt")
    model.train(**BRIEF)
    with pytest.raises(ValueError, match="no modality 'protein'"):
        model.predictability("rna", "protein")
    with pytest.raises(ValueError, match="must be a number, not 'latent'"):
        model.get_normalized_expression(library_size="latent")
    with pytest.raises(KeyError, match="no feature 'nothing'"):
        model.get_normalized_expression(gene_list=["nothing"])


def test_features_draws_and_batches_are_chosen():
    mdata = simulate_multiome(n_cells=100, n_batches=2, n_peaks=30)
    likelihoods = PAIR | {"atac": "bernoulli"}
    model = fitted(mdata, likelihoods, {"batch_key": "batch"})
    for ask, word, features in (
        (model.get_normalized_expression, "gene_list", mdata["rna"].var_names),
        (model.get_normalized_accessibility, "region_list", mdata["atac"].var_names),
        (model.get_protein_foreground_probability, "protein_list", mdata["adt"].var_names),
    ):
        some = list(features[[3, 1]])
        torch.manual_seed(0)
        whole = ask()
        torch.manual_seed(0)
        part = ask(**{word: some})
        assert list(part.columns) == some
        np.testing.assert_allclose(part, whole[some], rtol=1e-4, atol=1e-7)
        assert ask(n_samples=3, return_mean=False).shape == (3, 100, len(features))
        assert isinstance(ask(return_numpy=True), np.ndarray)
        each = []
        for batch in ("batch_0", "batch_1", ("batch_0", "batch_1")):
            torch.manual_seed(0)
            each.append(ask(transform_batch=batch).to_numpy())
        np.testing.assert_allclose(each[2], (each[0] + each[1]) / 2, rtol=1e-3, atol=1e-6)


def test_errors_are_averaged_over_cells_that_have_the_assay(mosaic):
    model = fitted(mosaic)
    torch.manual_seed(0)
    means = model.get_reconstruction_error()
    torch.manual_seed(0)
    each = model.get_reconstruction_error(return_mean=False)
    torch.manual_seed(0)
    loaded = model.get_reconstruction_error(dataloader=model._make_data_loader(mosaic))
    assert {k: float(v) for k, v in loaded.items()} == {k: float(v) for k, v in means.items()}
    rna_only = mosaic[(mosaic.obsmap["adt"] == 0)]
    assert list(model.get_reconstruction_error(copied(rna_only))) == ["reconstruction_loss_rna"]
    for name in PAIR:
        key, has = f"reconstruction_loss_{name}", torch.tensor(mosaic.obsmap[name] > 0)
        assert (each[key][~has] == 0).all()
        assert float(means[key]) == pytest.approx(float(each[key][has].mean()), rel=1e-5)


@pytest.mark.parametrize("name", ["batch", "labels", "X", "adt_present", "adt_mean"])
def test_names_that_a_minibatch_needs_are_refused(mosaic, name):
    other = assembled({name: mosaic["rna"].copy(), "adt": mosaic["adt"].copy()})
    with pytest.raises(ValueError, match="Rename the modality"):
        JointVI.setup_mudata(other, {name: "nb", "adt": "nb_mixture"})


def test_zeros_of_a_whole_batch_are_an_assay_that_was_not_measured():
    mdata = simulate_multiome(n_cells=200, n_peaks=0, n_batches=2)
    x = mdata["adt"].X.toarray()
    x[(mdata.obs["batch"] == "batch_1").to_numpy()] = 0
    mdata["adt"].X = x
    with pytest.raises(ValueError, match="remove these cells from"):
        JointVI.setup_mudata(mdata, PAIR, batch_key="batch")


def test_a_column_of_a_modality_is_pointed_at(mosaic):
    mosaic["rna"].obs["lane"] = "one"
    with pytest.raises(
        KeyError, match=r"obs of these modalities has this column: 'rna'.*mdata\.obs\.loc"
    ):
        JointVI.setup_mudata(mosaic, PAIR, batch_key="lane")


def test_continuous_values_are_no_counts_and_nobody_says_so(mosaic, recwarn):
    mosaic["adt"].X = np.log1p(mosaic["adt"].X.toarray())
    JointVI.setup_mudata(mosaic, {"rna": "nb", "adt": "normal"})
    assert not any("integer" in str(w.message) for w in recwarn)


def test_an_unprepared_query_is_told_how(mosaic):
    reference = fitted(mosaic)
    query = assembled({"rna": mosaic["rna"].copy()})
    with pytest.raises(KeyError, match="prepare_query_mudata"):
        JointVI.load_query_data(query, reference)
