"""A joint model of a minified object answers as it did of counts."""

from __future__ import annotations

import mudata
import numpy as np
import pytest
import torch
from scipy import sparse
from scvi.data._constants import ADATA_MINIFY_TYPE

from betavi import BetaVI, JointVI
from betavi.datasets import simulate_counts, simulate_multiome
from betavi.nn import FUSIONS

LIKELIHOODS = {"rna": "zinb", "adt": "nb_mixture", "atac": "bernoulli"}
QUIET = {"show_progress": False}
BRIEF = {"max_epochs": 2, "enable_progress_bar": False}
POSTERIORS, WITH_COUNTS = ADATA_MINIFY_TYPE
JOINT = [name for name in FUSIONS if name != "single"]


@pytest.fixture
def mosaic():
    mdata = simulate_multiome(n_cells=200, n_batches=2, missing={"adt": 0.5, "atac": 0.3})
    # not in the order of the cells, as those of two sources are
    return mdata[np.random.default_rng(0).permutation(mdata.n_obs)].copy()


def fitted(mdata, **kwargs):
    JointVI.setup_mudata(mdata, LIKELIHOODS, batch_key="batch")
    model = JointVI(mdata, n_latent=4, n_hidden=16, **kwargs)
    model.train(**BRIEF)
    return model


def answers(model):
    """Ask everything that needs no counts."""
    torch.manual_seed(0)
    found = {name: model.get_latent_representation(modalities=name) for name in LIKELIHOODS}
    found["all"] = model.get_latent_representation()
    found["variance"] = model.get_latent_representation(return_dist=True)[1]
    found["rna expression"] = model.get_normalized_expression(n_samples=3).to_numpy()
    found["foreground"] = model.get_protein_foreground_probability().to_numpy()
    found["open"] = model.get_normalized_accessibility(transform_batch="batch_1").to_numpy()
    found["translated"] = model.translate(["rna", "atac"], "adt", **QUIET).layers["upper"]
    found["generated"] = model.generate(30, seed=0, **QUIET)["rna"].X.toarray()
    table = model.differential_expression(
        modality="adt", groupby="cell_type", silent=True, all_stats=False
    )
    return found | {"compared": table["bayes_factor"].to_numpy()}


@pytest.mark.slow
@pytest.mark.parametrize("fusion", JOINT)
@pytest.mark.parametrize("kind", ADATA_MINIFY_TYPE)
def test_every_answer_is_the_same(mosaic, fusion, kind, tmp_path):
    model = fitted(mosaic, fusion=fusion)
    before = answers(model)
    model.minify_mudata(kind, **QUIET)
    model.save(tmp_path / "model", save_anndata=True)
    for minified in (model, JointVI.load(tmp_path / "model")):
        assert minified.minified_data_type == kind
        after = answers(minified)
        for name, value in before.items():
            np.testing.assert_allclose(after[name], value, rtol=2e-3, atol=1e-4, err_msg=name)


def test_the_users_object_is_untouched_and_counts_are_gone(mosaic):
    mosaic.obsm["X_mine"] = np.ones((mosaic.n_obs, 2))
    mosaic["rna"].layers["raw"] = mosaic["rna"].X.copy()
    mosaic.mod["other"] = mosaic["rna"].copy()
    mosaic = mudata.MuData(dict(mosaic.mod))
    mosaic.obs["batch"] = "one"
    counts = mosaic["rna"].X.toarray()
    mosaic.obsp["near"] = sparse.eye(mosaic.n_obs, format="csr")
    mosaic["rna"].obsp["near"] = sparse.eye(mosaic["rna"].n_obs, format="csr")
    model = fitted(mosaic)
    columns = [set(part.obsm) | set(part.obs) for part in mosaic.mod.values()]
    model.minify_mudata(**QUIET)
    assert model.adata is not mosaic
    np.testing.assert_array_equal(mosaic["rna"].X.toarray(), counts)
    assert [set(part.obsm) | set(part.obs) for part in mosaic.mod.values()] == columns
    assert list(model.adata.obs_names) == list(mosaic.obs_names)
    for name in LIKELIHOODS:
        assert model.adata[name].X.nnz == 0
        assert not model.adata[name].layers
        assert list(model.adata[name].obs_names) == list(mosaic[name].obs_names)
    assert model.adata.obsp["near"].shape == (mosaic.n_obs, mosaic.n_obs)
    assert "near" in model.adata["rna"].obsp
    # a modality that the model knows nothing of cannot be made of its experts
    np.testing.assert_array_equal(model.adata["other"].X.toarray(), counts)


def test_the_counts_are_in_a_layer(mosaic):
    for part in mosaic.mod.values():
        part.layers["counts"] = part.X.copy()
        part.X = np.log1p(part.X)
    JointVI.setup_mudata(mosaic, LIKELIHOODS, dict.fromkeys(LIKELIHOODS, "counts"), "batch")
    model = JointVI(mosaic, n_latent=4)
    model.train(**BRIEF)
    before = model.get_latent_representation()
    model.minify_mudata(**QUIET)
    np.testing.assert_allclose(model.get_latent_representation(), before, rtol=1e-3, atol=1e-5)


@pytest.mark.slow
def test_what_compares_with_counts_is_refused(mosaic):
    model = fitted(mosaic)
    model.minify_mudata(**QUIET)
    asks = {
        "get_elbo": model.get_elbo,
        "get_reconstruction_error": model.get_reconstruction_error,
        "get_marginal_ll": model.get_marginal_ll,
        "diagnose": model.diagnose,
        "rescue": model.rescue,
        "rate_distortion": model.rate_distortion,
        "suggest_beta": model.suggest_beta,
        "support": model.support,
        "denoise": model.denoise,
        "archetype": model.archetype,
        "check_false_signals": model.check_false_signals,
        "cross_validate_denoising": model.cross_validate_denoising,
        "predictability": lambda: model.predictability("rna", "adt"),
        "loss": lambda: model.train(1, enable_progress_bar=False),
    }
    for name, ask in asks.items():
        with pytest.raises(ValueError, match=rf"\b{name}\b.* minified"):
            ask()
    table = model.differential_expression(groupby="cell_type", silent=True)
    assert "raw_mean1" not in table
    with pytest.raises(ValueError, match="minified already"):
        model.minify_mudata(**QUIET)


@pytest.mark.slow
def test_kept_counts_can_be_compared_with(mosaic):
    model = fitted(mosaic, fusion="poe")
    torch.manual_seed(0)
    before = model.get_reconstruction_error()
    table = model.differential_expression(groupby="cell_type", silent=True)
    model.minify_mudata(WITH_COUNTS, **QUIET)
    torch.manual_seed(0)
    after = model.get_reconstruction_error()
    for name, value in before.items():
        assert float(after[name]) == pytest.approx(float(value), rel=1e-3)
    again = model.differential_expression(groupby="cell_type", silent=True)
    np.testing.assert_allclose(again["raw_mean1"].sum(), table["raw_mean1"].sum())


def test_bad_calls_are_refused(mosaic):
    JointVI.setup_mudata(mosaic, LIKELIHOODS, batch_key="batch")
    model = JointVI(mosaic, n_latent=4)
    with pytest.raises(RuntimeError, match="train"):
        model.minify_mudata(**QUIET)
    model.train(**BRIEF)
    with pytest.raises(ValueError, match="Unknown `minified_data_type` 'posterior'"):
        model.minify_mudata("posterior")
    with pytest.raises(TypeError, match="minify_mudata"):
        model.minify_adata()
    with pytest.raises(ValueError, match="one β"):
        model.minify_mudata(beta=3.0)
    assert model.adata is mosaic
    assert model.minified_data_type is None


@pytest.mark.slow
def test_a_model_of_many_beta_keeps_the_experts_of_one(mosaic):
    model = fitted(mosaic, beta=(0.1, 10.0))
    before = model.get_latent_representation(modalities="adt", beta=4.0)
    model.minify_mudata(beta=4.0, **QUIET)
    np.testing.assert_allclose(
        model.get_latent_representation(modalities="adt"), before, rtol=1e-3, atol=1e-5
    )
    with pytest.raises(ValueError, match=r"posteriors at beta=4 only"):
        model.get_latent_representation(beta=1.0)
    generated = model.generate(20, seed=0, **QUIET)["rna"].X.toarray()
    np.testing.assert_array_equal(
        model.generate(20, seed=0, beta=4.0, **QUIET)["rna"].X.toarray(), generated
    )
    other = fitted(mosaic, beta=(0.1, 10.0))
    other.minify_mudata(beta=0.5, **QUIET)
    with pytest.raises(
        ValueError, match=r"minified at beta=0.5, but the model's own object was minified at beta=4"
    ):
        model.get_latent_representation(other.adata.copy())


def test_an_object_of_the_other_kind_is_refused(mosaic, tmp_path):
    """Zeros would be encoded as if they were counts."""
    model, whole = fitted(mosaic), mosaic.copy()
    model.save(tmp_path / "model")
    model.minify_mudata(**QUIET)
    minified = model.adata.copy()
    with pytest.raises(ValueError, match="holds counts, but the model's own object is minified"):
        model.get_latent_representation(whole)
    loaded = JointVI.load(tmp_path / "model", adata=mosaic)
    with pytest.raises(ValueError, match=r"is minified .* but the model's own object holds counts"):
        loaded.get_latent_representation(minified)
    # some of the cells are of the same kind
    some = minified[:50].copy()
    np.testing.assert_allclose(
        model.get_latent_representation(some), model.get_latent_representation(indices=range(50))
    )


def test_betavi_refuses_an_object_of_the_other_kind(tmp_path):
    counts = simulate_counts(n_cells=100, n_genes=20)
    BetaVI.setup_anndata(counts)
    model = BetaVI(counts)
    model.train(**BRIEF)
    model.save(tmp_path / "model")
    qzm, qzv = model.get_latent_representation(return_dist=True)
    counts.obsm["X_latent_qzm"], counts.obsm["X_latent_qzv"] = qzm, qzv
    model.minify_adata()
    with pytest.raises(ValueError, match="holds counts"):
        model.get_latent_representation(counts.copy())
    loaded = BetaVI.load(tmp_path / "model", adata=counts)
    with pytest.raises(ValueError, match="is minified"):
        loaded.get_latent_representation(model.adata.copy())


@pytest.mark.slow
def test_a_query_maps_onto_a_minified_reference(mosaic, tmp_path):
    reference = fitted(mosaic)
    reference.minify_mudata(**QUIET)
    reference.save(tmp_path / "model", save_anndata=True)
    query = simulate_multiome(n_cells=60, n_proteins=0, seed=1)
    query.obs["batch"] = "new"
    for named in (reference, str(tmp_path / "model")):
        prepared = JointVI.prepare_query_mudata(query, named)
        mapped = JointVI.load_query_data(prepared, named)
        mapped.train(**BRIEF)
        assert mapped.minified_data_type is None
        before = mapped.get_latent_representation()
        mapped.minify_mudata(**QUIET)
        np.testing.assert_allclose(mapped.get_latent_representation(), before, rtol=1e-3, atol=1e-4)
