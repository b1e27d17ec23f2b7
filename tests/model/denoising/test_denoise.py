"""Denoised counts: what they are, where they go, and what is left alone."""

from __future__ import annotations

import anndata
import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse

from betavi import BetaVI, JointVI
from betavi.datasets import simulate_counts, simulate_multiome
from betavi.likelihoods import LIKELIHOODS
from betavi.model.denoising.destination import Destination

BRIEF = {"max_epochs": 2, "enable_progress_bar": False}
QUIET = {"show_progress": False}
JOINT = {"rna": "zinb", "adt": "nb_mixture", "atac": "bernoulli"}


@pytest.fixture
def counts():
    return simulate_counts(n_cells=150, n_genes=30, n_batches=2)


def fitted(adata, setup=None, **kwargs):
    BetaVI.setup_anndata(adata, **(setup or {}))
    model = BetaVI(adata, n_latent=4, n_hidden=16, **kwargs)
    model.train(**BRIEF)
    return model


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
@pytest.mark.parametrize("estimate", ["posterior", "mean"])
def test_every_likelihood(counts, likelihood, estimate):
    before = counts.X.copy()
    model = fitted(counts, gene_likelihood=likelihood)
    model.denoise(estimate=estimate, std_layer_added="std", n_samples=3, **QUIET)
    values, std = counts.layers["denoised"], counts.layers["std"]
    assert values.shape == std.shape == counts.shape
    assert values.dtype == np.float32
    assert np.isfinite(values).all()
    assert (values >= 0).all()
    assert (std >= 0).all()
    assert std.max() > 0
    assert (before != counts.X).sum() == 0


@pytest.mark.parametrize("likelihood", ["zinb", "nb", "poisson", "nb_mixture"])
def test_an_autoencoder_shows_what_is_computed(counts, likelihood):
    """Its z is a point, so that the getter of parameters decodes the same."""
    model = fitted(counts, gene_likelihood=likelihood, latent_distribution="deterministic")
    given = model.get_likelihood_parameters()
    x, mean = counts.X.toarray(), given["mean"]
    expected = mean * (1 - given.get("dropout", 0.0))
    model.denoise(estimate="mean", **QUIET)
    np.testing.assert_allclose(counts.layers["denoised"], expected, rtol=1e-4)
    model.denoise(std_layer_added="std", **QUIET)
    found = counts.layers["denoised"]
    if likelihood == "poisson":
        np.testing.assert_allclose(found, expected, rtol=1e-4)
        assert counts.layers["std"].max() == 0
    elif likelihood == "nb":
        theta = given["dispersions"]
        np.testing.assert_allclose(found, mean * (theta + x) / (theta + mean), rtol=1e-4)
        np.testing.assert_allclose(
            counts.layers["std"], mean * np.sqrt(theta + x) / (theta + mean), rtol=1e-4
        )
    else:
        # a count above what is expected pulls up, and one below down
        assert (found[x > 3 * expected + 1] > expected[x > 3 * expected + 1]).all()
        assert (found[x == 0] <= expected[x == 0] * (1 + 1e-4)).all()


@pytest.mark.slow
def test_true_rates_are_found_better_than_by_counts_or_the_mean_alone():
    """Rates vary beyond the types, and the simulation knows them."""
    adata = simulate_counts(n_cells=800, n_genes=60, seed=2)
    rng = np.random.default_rng(0)
    types = adata.obs["cell_type"].cat.codes.to_numpy()
    profile = rng.gamma(1.0, 4.0, size=(types.max() + 1, 60))
    rates = profile[types] * rng.gamma(2.0, 0.5, size=adata.shape)
    adata.X = sparse.csr_matrix(rng.poisson(rates).astype(np.float32))
    BetaVI.setup_anndata(adata)
    model = BetaVI(adata, gene_likelihood="nb", n_hidden=32, n_latent=4)
    model.train(60, enable_progress_bar=False, plan_kwargs={"one_cycle": 1e-2})
    model.denoise(std_layer_added="std", n_samples=10, **QUIET)
    model.denoise(layer_added="mean", estimate="mean", **QUIET)
    error = {
        name: np.square(values - rates).mean()
        for name, values in {**adata.layers, "counts": adata.X.toarray()}.items()
        if name is not None
    }
    assert error["denoised"] < 0.8 * min(error["counts"], error["mean"])
    # and how far off they are is known
    off = (adata.layers["denoised"] - rates) / adata.layers["std"]
    assert np.square(off).mean() == pytest.approx(1, abs=0.25)


def test_x_is_replaced_and_the_model_reads_the_counts_that_are_kept(counts, tmp_path):
    model = fitted(counts, {"batch_key": "batch"})
    before, latent = counts.X.toarray(), model.get_latent_representation()
    model.denoise(layer_added=None, transform_batch=["batch_0", "batch_1"], **QUIET)
    np.testing.assert_array_equal(counts.layers["counts"].toarray(), before)
    assert np.abs(counts.X - before).max() > 0.1
    np.testing.assert_array_equal(model.get_latent_representation(), latent)
    once = counts.X.copy()
    # again, from the counts and not from what is denoised
    model.denoise(layer_added=None, transform_batch=["batch_0", "batch_1"], **QUIET)
    np.testing.assert_array_equal(counts.X, once)
    model.save(tmp_path / "model", save_anndata=True)
    loaded = BetaVI.load(tmp_path / "model")
    np.testing.assert_allclose(loaded.get_latent_representation(), latent, rtol=1e-4, atol=1e-5)
    model.train(1, enable_progress_bar=False)


def test_another_object_is_denoised_in_place(counts):
    model = fitted(counts)
    other = counts[::-1][:40].copy()
    before = other.X.toarray()
    model.denoise(other, layer_added=None, **QUIET)
    model.denoise(**QUIET)
    np.testing.assert_allclose(other.X, counts.layers["denoised"][::-1][:40], rtol=1e-4)
    np.testing.assert_array_equal(other.layers["counts"].toarray(), before)
    model.denoise(other, **QUIET)
    np.testing.assert_array_equal(other.layers["denoised"], other.X)


def test_some_genes_are_a_frame(counts):
    model = fitted(counts)
    model.denoise(**QUIET)
    genes = list(counts.var_names[[7, 2]])
    model.denoise(layer_added="some", std_layer_added="some_std", gene_list=genes, **QUIET)
    frame = counts.obsm["some"]
    assert list(frame.columns) == genes
    assert (frame.index == counts.obs_names).all()
    np.testing.assert_allclose(frame, counts.layers["denoised"][:, [7, 2]], rtol=1e-5)
    assert "some" not in counts.layers
    assert (counts.obsm["some_std"].to_numpy() > 0).all()


def test_what_uns_says_of_a_layer_is_of_what_is_there(counts):
    model = fitted(counts)
    model.denoise(drop_below=0.5, **QUIET)
    assert counts.uns["betavi"]["denoised"]["denoised"]["dropped_share"] > 0
    model.denoise(gene_list=[counts.var_names[0]], n_samples=2, **QUIET)
    model.denoise(layer_added="mean", estimate="mean", **QUIET)
    model.denoise(**QUIET)
    said = counts.uns["betavi"]["denoised"]
    assert set(said) == {"denoised", "denoised in obsm", "mean"}
    assert "dropped_share" not in said["denoised"]
    assert said["denoised in obsm"]["n_samples"] == 2
    assert said["mean"]["estimate"] == "mean"


def test_genes_may_be_in_any_kind_of_list(counts):
    model = fitted(counts)
    names = list(counts.var_names[[7, 2]])
    for kind in (tuple, np.array, pd.Index, pd.Series):
        model.denoise(layer_added="some", gene_list=kind(names), dtype=np.float16, **QUIET)
        assert list(counts.obsm["some"].columns) == names
        assert (counts.obsm["some"].dtypes == np.float16).all()
    for wrong, words in (([], "empty"), ([names[0], names[1], names[0]], "2 times")):
        with pytest.raises(ValueError, match=words):
            model.denoise(gene_list=wrong, **QUIET)


def test_batches_are_averaged_and_told(counts):
    model = fitted(counts, {"batch_key": "batch"})
    with pytest.warns(UserWarning, match=r"own batches \(2\)"):
        model.denoise(**QUIET)
    each = []
    for batch in ("batch_0", "batch_1"):
        with pytest.warns(UserWarning, match="needs the decoder's mean"):
            model.denoise(transform_batch=batch, **QUIET)
        each.append(counts.layers["denoised"].copy())
    model.denoise(transform_batch=["batch_0", "batch_1"], estimate="mean", **QUIET)
    np.testing.assert_allclose(counts.layers["denoised"], np.mean(each, axis=0), rtol=1e-4)
    assert np.abs(each[0] - each[1]).max() > 0


@pytest.mark.parametrize("estimate", ["posterior", "mean"])
def test_sizes(counts, estimate):
    model = fitted(counts, gene_likelihood="nb")
    model.denoise(estimate=estimate, **QUIET)
    own = counts.layers["denoised"].copy()
    model.denoise(estimate=estimate, library_size=1e4, std_layer_added="std", **QUIET)
    totals = np.asarray(counts.X.sum(axis=1))
    np.testing.assert_allclose(counts.layers["denoised"], own * 1e4 / totals, rtol=1e-3)
    if estimate == "mean":
        np.testing.assert_allclose(counts.layers["denoised"].sum(axis=1), 1e4, rtol=1e-3)


def test_sizes_that_are_inferred_or_given(counts):
    model = fitted(counts, use_observed_lib_size=False, gene_likelihood="nb")
    model.denoise(library_size="latent", estimate="mean", **QUIET)
    latent = counts.layers["denoised"].sum(axis=1)
    model.denoise(library_size="observed", estimate="mean", **QUIET)
    observed = counts.layers["denoised"].sum(axis=1)
    np.testing.assert_allclose(observed, np.asarray(counts.X.sum(axis=1)).ravel(), rtol=1e-3)
    assert np.abs(latent - observed).max() > 0.1
    counts.obs["size"] = np.linspace(0.5, 2, counts.n_obs)
    model = fitted(counts, {"size_factor_key": "size"}, gene_likelihood="nb")
    model.denoise(estimate="mean", **QUIET)
    own = counts.layers["denoised"].copy()
    model.denoise(estimate="mean", library_size=1.0, **QUIET)
    unit = own / counts.obs["size"].to_numpy()[:, None]
    np.testing.assert_allclose(counts.layers["denoised"], unit, rtol=1e-3)


@pytest.mark.slow
def test_draws_add_their_spread(counts):
    model = fitted(counts, gene_likelihood="poisson")
    model.denoise(std_layer_added="one", **QUIET)
    torch.manual_seed(0)
    model.denoise(std_layer_added="many", n_samples=200, **QUIET)
    assert counts.layers["one"].max() == 0
    assert counts.layers["many"].min() > 0
    torch.manual_seed(0)
    draws = np.stack(
        [model.get_normalized_expression(return_numpy=True, library_size=1) for _ in range(200)]
    )
    totals = np.asarray(counts.X.sum(axis=1))
    ratio = counts.layers["many"] / (draws.std(axis=0) * totals)
    assert np.median(ratio) == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("kind", [sparse.csr_matrix, sparse.csc_matrix, np.asarray])
def test_every_container_has_the_same_values(counts, kind):
    model = fitted(counts)
    model.denoise(**QUIET)
    expected = counts.layers["denoised"]
    other = anndata.AnnData(kind(counts.X.toarray()), obs=counts.obs.copy(), var=counts.var.copy())
    model.denoise(other, **QUIET)
    np.testing.assert_allclose(other.layers["denoised"], expected, rtol=1e-5)
    view = other[30:60]
    model.denoise(view, layer_added="of_view", **QUIET)
    np.testing.assert_allclose(view.layers["of_view"], expected[30:60], rtol=1e-5)
    assert "of_view" not in other.layers


def test_bad_calls_name_the_remedy_and_change_nothing(counts):
    BetaVI.setup_anndata(counts, batch_key="batch")
    model = BetaVI(counts)
    with pytest.raises(RuntimeError, match="train"):
        model.denoise()
    model.train(**BRIEF)
    counts.layers["counts"] = counts.X.copy()
    before = (set(counts.layers), set(counts.obsm), counts.X.copy())
    for kwargs, error, words in [
        ({"estimate": "median"}, ValueError, "'posterior', 'mean'"),
        ({"n_samples": 0}, ValueError, "n_samples"),
        ({"library_size": "latent"}, ValueError, "infers no library size"),
        ({"library_size": -1}, ValueError, "positive"),
        ({"library_size": "big"}, ValueError, "'observed'"),
        ({"transform_batch": "nowhere"}, ValueError, "no batch 'nowhere'"),
        ({"transform_batch": []}, ValueError, "names no batch"),
        ({"gene_list": ["gene_x"]}, KeyError, "no feature 'gene_x'"),
        ({"gene_list": "gene_1"}, TypeError, "list of names"),
        (
            {"gene_list": ["gene_1"], "layer_added": None},
            ValueError,
            "`gene_list` needs `layer_added`, because it cannot replace X",
        ),
        ({"layer_added": None}, ValueError, "because this layer already exists"),
        ({"std_layer_added": "denoised"}, ValueError, "both 'denoised'"),
    ]:
        with pytest.raises(error, match=words):
            model.denoise(**QUIET | kwargs)
        assert (set(counts.layers), set(counts.obsm)) == before[:2]
    assert (before[2] != counts.X).nnz == 0
    BetaVI.setup_anndata(counts, layer="counts")
    model = BetaVI(counts)
    model.train(**BRIEF)
    with pytest.raises(ValueError, match="holds the counts"):
        model.denoise(layer_added="counts", **QUIET)
    # X is no counts of the model's, and is replaced alone
    kept = counts.layers["counts"]
    model.denoise(layer_added=None, **QUIET)
    assert (counts.layers["counts"] != kept).nnz == 0


def test_a_failed_call_on_a_new_object_leaves_no_trace(counts):
    model = fitted(counts, {"batch_key": "batch"})
    other = simulate_counts(n_cells=40, n_genes=30, n_batches=2, seed=9)
    before = set(other.obs), dict(other.uns), set(other.obsm)
    for kwargs in ({"estimate": "median"}, {"gene_list": ["x"]}, {"transform_batch": "y"}):
        with pytest.raises((ValueError, KeyError)):
            model.denoise(other, **QUIET | kwargs)
        assert (set(other.obs), dict(other.uns), set(other.obsm)) == before


def test_counts_of_another_model_are_kept_too(counts):
    """X and a layer both hold counts, and a model of each is there."""
    counts.layers["thinned"] = (counts.X.toarray() > 1).astype(np.float32)
    of_x = fitted(counts)
    before = of_x.get_latent_representation()
    of_layer = fitted(counts, {"layer": "thinned"})
    of_layer.denoise(layer_added=None, **QUIET)
    np.testing.assert_array_equal(of_x.get_latent_representation(), before)
    with pytest.raises(ValueError, match="`std_layer_added` must not be 'counts'"):
        fitted(simulate_counts(n_cells=50, n_genes=10)).denoise(
            layer_added=None, std_layer_added="counts", **QUIET
        )


def test_counts_that_are_back_in_x_are_told(counts):
    model = fitted(counts)
    model.denoise(layer_added=None, **QUIET)
    counts.X = counts.layers["counts"] * 2
    with pytest.warns(UserWarning, match="X holds whole numbers again"):
        BetaVI.setup_anndata(counts)
    del counts.uns["betavi"]["counts_moved_to"]
    BetaVI.setup_anndata(counts)
    assert BetaVI(counts).raw_counts().sum() == 2 * counts.layers["counts"].sum()


def test_several_genes_of_a_name_are_ambiguous(counts):
    counts.var_names = ["a", "a", *counts.var_names[2:]]
    model = fitted(counts)
    with pytest.raises(ValueError, match="several features named 'a'"):
        model.denoise(gene_list=["a"], **QUIET)


def test_a_query_with_fewer_genes_keeps_its_counts(counts):
    model = fitted(counts)
    query = simulate_counts(n_cells=40, n_genes=30, seed=5)
    plain = query[:, :25].copy()
    BetaVI.prepare_query_anndata(plain, model)
    expected = model.get_latent_representation(plain)
    model.denoise(query, layer_added=None, **QUIET)
    part = query[:, :25].copy()
    BetaVI.prepare_query_anndata(part, model)
    np.testing.assert_allclose(model.get_latent_representation(part), expected, rtol=1e-4)


def test_an_interrupted_call_changes_nothing(counts, monkeypatch):
    model = fitted(counts)
    columns, uns = set(counts.obs), dict(counts.uns)
    monkeypatch.setattr("betavi.model.denoising.estimate.moments", _interrupt)
    with pytest.raises(KeyboardInterrupt):
        model.denoise(layer_added=None, **QUIET)
    assert set(counts.obs) == columns
    assert not counts.layers
    assert counts.uns == uns


@pytest.mark.parametrize("layer", [None, "denoised"])
def test_a_call_that_fails_while_it_writes_changes_nothing(mosaic, monkeypatch, layer):
    """Of two modalities the first is written when the second cannot be."""
    model = fitted_jointly(mosaic)
    rna, adt = mosaic["rna"], mosaic["adt"]
    for part in (rna, adt):
        part.layers["denoised"] = np.full(part.shape, 0.5)
        part.layers["of the user"] = part.X.copy()
        part.uns["betavi"] = {"mine": 1}
    before = {
        name: (part.X, part.X.copy(), dict(part.layers), dict(part.uns), set(part.obsm))
        for name, part in mosaic.mod.items()
    }
    add = Destination._add_to_uns

    def full(destination, said):
        if destination.name == "adt":
            raise MemoryError
        add(destination, said)

    monkeypatch.setattr(Destination, "_add_to_uns", full)
    with pytest.raises(MemoryError):
        model.denoise(modalities=["rna", "adt"], layer_added=layer, std_layer_added="std", **QUIET)
    for name, (x, values, layers, uns, obsm) in before.items():
        part = mosaic[name]
        assert part.X is x
        assert (values != part.X).sum() == 0
        assert set(part.layers) == set(layers)
        # the arrays themselves, in which nothing was written
        assert all(part.layers[k] is v for k, v in layers.items() if k is not None)
        assert (part.layers["denoised"] == 0.5).all() if name in ("rna", "adt") else True
        assert dict(part.uns) == uns
        assert set(part.obsm) == obsm


def _interrupt(*_args):
    raise KeyboardInterrupt


def test_minified_objects_are_refused(counts):
    model = fitted(counts)
    qzm, qzv = model.get_latent_representation(return_dist=True)
    counts.obsm["X_latent_qzm"], counts.obsm["X_latent_qzv"] = qzm, qzv
    model.minify_adata()
    with pytest.raises(
        ValueError, match=r"`denoise` needs counts.*Call `denoise` before minifying"
    ):
        model.denoise()


def test_a_model_of_many_beta_denoises_at_each(counts):
    model = fitted(counts, beta=(0.1, 10.0))
    model.denoise(beta=0.1, layer_added="low", **QUIET)
    model.denoise(beta=10.0, layer_added="high", **QUIET)
    assert np.abs(counts.layers["low"] - counts.layers["high"]).max() > 0
    said = counts.uns["betavi"]["denoised"]
    assert (said["low"]["beta"], said["high"]["beta"]) == (0.1, 10.0)


@pytest.fixture
def mosaic():
    mdata = simulate_multiome(n_cells=200, n_batches=2, missing={"adt": 0.5, "atac": 0.3})
    return mdata[np.random.default_rng(0).permutation(mdata.n_obs)].copy()


def fitted_jointly(mdata, layers=None, **kwargs):
    JointVI.setup_mudata(mdata, JOINT, layers, batch_key="batch")
    model = JointVI(mdata, n_latent=4, n_hidden=16, **kwargs)
    model.train(**BRIEF)
    return model


def test_every_modality_has_its_own_cells(mosaic):
    model = fitted_jointly(mosaic)
    model.denoise(std_layer_added="std", **QUIET)
    for name in JOINT:
        part = mosaic[name]
        assert part.layers["denoised"].shape == part.shape
        assert (part.layers["denoised"] >= 0).all()
    assert mosaic["atac"].layers["denoised"].max() <= 1
    # whatever the order of the cells
    other = mosaic[np.random.default_rng(1).permutation(mosaic.n_obs)].copy()
    model.denoise(other, layer_added="again", **QUIET)
    for name in JOINT:
        rows = mosaic[name].obs_names.get_indexer(other[name].obs_names)
        expected = mosaic[name].layers["denoised"][rows]
        np.testing.assert_allclose(other[name].layers["again"], expected, rtol=1e-3, atol=1e-5)


def test_one_assay_is_denoised_by_the_others_too(mosaic):
    """Proteins of a cell differ by the RNA that it has, and by their own counts."""
    model = fitted_jointly(mosaic, fusion="poe")
    model.denoise(modalities="adt", **QUIET)
    both = set(mosaic["adt"].obs_names) & set(mosaic["rna"].obs_names)
    alone = mosaic.copy()
    for part in alone.mod.values():
        part.layers.clear()
    alone.mod["rna"] = alone["rna"][[n not in both for n in alone["rna"].obs_names]].copy()
    alone.update()
    model.denoise(alone, modalities=["adt"], **QUIET)
    assert "denoised" not in mosaic["rna"].layers
    difference = mosaic["adt"].layers["denoised"] - alone["adt"].layers["denoised"]
    assert np.abs(difference).max() > 0


def test_counts_of_modalities_are_kept(mosaic):
    model = fitted_jointly(mosaic)
    before = {name: mosaic[name].X.toarray() for name in JOINT}
    latent = model.get_latent_representation()
    model.denoise(layer_added=None, **QUIET)
    for name, counts in before.items():
        np.testing.assert_array_equal(mosaic[name].layers["counts"].toarray(), counts)
        assert np.abs(mosaic[name].X - counts).max() > 0.01
    np.testing.assert_array_equal(model.get_latent_representation(), latent)


def test_bad_joint_calls(mosaic):
    model = fitted_jointly(mosaic)
    before = {name: set(mosaic[name].layers) for name in JOINT}
    for kwargs, error, words in [
        ({"modalities": "rn"}, ValueError, "no modality 'rn'"),
        ({"gene_list": ["gene_1"]}, ValueError, "a single modality"),
        ({"gene_list": ["nothing"], "modalities": "adt"}, KeyError, "mdata\\['adt'\\]"),
        (
            {"library_size": 1e4, "modalities": "adt"},
            ValueError,
            "cannot set the total of the modality 'adt'",
        ),
        ({"library_size": "latent"}, ValueError, "infers no library size"),
    ]:
        with pytest.raises(error, match=words):
            model.denoise(**QUIET | kwargs)
    assert {name: set(mosaic[name].layers) for name in JOINT} == before
