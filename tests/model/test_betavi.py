"""What a script written for SCVI asks of a model."""

from __future__ import annotations

import anndata
import numpy as np
import pytest
import scvi
import torch
from scipy import sparse
from scvi.dataloaders import DataSplitter

from betavi import BetaVI
from betavi.likelihoods import LIKELIHOODS
from betavi.nn import LATENTS
from tests.conftest import BRIEF

OURS = {"active_dimensions", "beta", "mutual_information"}
"""What betavi adds to the history."""


def scvi_script(cls, adata, folder):
    """Do what users of SCVI do, and return the shapes of what they get."""
    cls.setup_anndata(
        adata,
        layer="raw",
        batch_key="batch",
        labels_key="cell_type",
        categorical_covariate_keys=["donor"],
        continuous_covariate_keys=["age"],
    )
    model = cls(adata, n_latent=4, n_layers=2, gene_likelihood="nb", dispersion="gene-batch")
    model.train(
        max_epochs=3,
        early_stopping=True,
        check_val_every_n_epoch=1,
        batch_size=64,
        plan_kwargs={"lr": 1e-3, "n_epochs_kl_warmup": 2, "reduce_lr_on_plateau": True},
        enable_progress_bar=False,
    )
    cells, genes = [9, 2, 30], ["gene_1", "gene_3"]
    shapes = {
        "history": sorted(set(model.history) - OURS),
        "latent": model.get_latent_representation().shape,
        "latent_dist": [x.shape for x in model.get_latent_representation(return_dist=True)],
        "normalized": model.get_normalized_expression(library_size=1e4, indices=cells).shape,
        "latent_library": model.get_normalized_expression(library_size="latent").shape,
        "genes": list(model.get_normalized_expression(gene_list=genes, n_samples=3).columns),
        "samples": model.get_normalized_expression(
            n_samples=3, return_mean=False, indices=cells
        ).shape,
        "transformed": model.get_normalized_expression(transform_batch="batch_1").shape,
        "averaged": model.get_normalized_expression(transform_batch=["batch_0", "batch_1"]).shape,
        "elbo": model.get_elbo().ndim,
        "marginal": model.get_marginal_ll(n_mc_samples=3).ndim,
        "marginal_cells": model.get_marginal_ll(n_mc_samples=3, return_mean=False).shape,
        "reconstruction": sorted(model.get_reconstruction_error()),
        "library": model.get_latent_library_size(give_mean=False).shape,
        "predictive": model.posterior_predictive_sample(indices=cells, n_samples=2).shape,
        "parameters": {k: v.shape for k, v in model.get_likelihood_parameters().items()},
        "correlation": model.get_feature_correlation_matrix(n_samples=2).shape,
        "change": list(
            model.differential_expression(
                groupby="cell_type", group1="type_0", mode="change", silent=True
            ).columns
        ),
        "vanilla": model.differential_expression(idx1=[0, 1, 2], silent=True).shape,
        "importance": model.differential_expression(
            idx1=[0, 1, 2, 3],
            idx2=[7, 8, 9],
            weights="importance",
            importance_weighting_kwargs={"n_mc_samples": 10, "n_mc_samples_per_pass": 5},
            silent=True,
        ).shape,
    }
    model.save(folder / "model", save_anndata=True)
    loaded = cls.load(folder / "model")
    np.testing.assert_array_equal(
        loaded.get_latent_representation(), model.get_latent_representation()
    )
    query = adata[:50].copy()
    query.obs["batch"] = "new"
    mapped = cls.load_query_data(query, str(folder / "model"))
    mapped.train(max_epochs=1, plan_kwargs={"weight_decay": 0.0}, enable_progress_bar=False)
    shapes["query"] = mapped.get_latent_representation().shape
    qzm, qzv = model.get_latent_representation(return_dist=True)
    adata.obsm["X_latent_qzm"], adata.obsm["X_latent_qzv"] = qzm, qzv
    model.minify_adata()
    np.testing.assert_array_equal(model.get_latent_representation(), qzm)
    shapes["minified"] = model.get_normalized_expression().shape
    return shapes


@pytest.mark.slow
def test_a_script_for_scvi_runs_by_changing_one_import(counts, tmp_path):
    theirs = scvi_script(scvi.model.SCVI, counts.copy(), tmp_path / "scvi")
    ours = scvi_script(BetaVI, counts.copy(), tmp_path / "betavi")
    assert ours == theirs


@pytest.mark.slow
@pytest.mark.parametrize("gene_likelihood", LIKELIHOODS)
@pytest.mark.parametrize("latent_distribution", LATENTS)
@pytest.mark.parametrize("use_observed_lib_size", [True, False])
def test_every_getter_of_every_member(
    counts, gene_likelihood, latent_distribution, use_observed_lib_size
):
    BetaVI.setup_anndata(counts, batch_key="batch")
    model = BetaVI(
        counts,
        gene_likelihood=gene_likelihood,
        latent_distribution=latent_distribution,
        use_observed_lib_size=use_observed_lib_size,
    )
    model.train(**BRIEF)
    assert model.get_latent_representation().shape == (300, 10)
    assert torch.isfinite(model.get_elbo())
    parameters = model.get_likelihood_parameters(n_samples=3, give_mean=True, indices=[4, 1])
    assert all(value.shape == (2, 40) for value in parameters.values())
    assert np.isfinite(model.posterior_predictive_sample(n_samples=2).todense()).all()
    assert np.isfinite(model.get_normalized_expression(library_size="latent")).all(axis=None)
    if not LIKELIHOODS[gene_likelihood].is_gamma_poisson:
        with pytest.raises(
            NotImplementedError, match=f"correlations need .*, not {gene_likelihood!r}"
        ):
            model.get_feature_correlation_matrix(n_samples=3)
    else:
        correlations = model.get_feature_correlation_matrix(indices=np.arange(50), n_samples=3)
        assert np.isfinite(correlations).all(axis=None)
        if latent_distribution != "deterministic":
            change = model.differential_expression(
                idx1=[0, 1, 2, 3],
                idx2=[7, 8, 9],
                weights="importance",
                importance_weighting_kwargs={"n_mc_samples": 10, "n_mc_samples_per_pass": 5},
                silent=True,
            )
            assert change["bayes_factor"].notna().all()
    if latent_distribution == "deterministic":
        assert (model.get_latent_representation(return_dist=True)[1] == 0).all()
        with pytest.raises(ValueError, match="no marginal likelihood"):
            model.get_marginal_ll(n_mc_samples=2)
    else:
        assert np.isfinite(model.get_marginal_ll(n_mc_samples=2))


def test_training_improves_the_held_out_elbo(counts):
    BetaVI.setup_anndata(counts, batch_key="batch")
    model = BetaVI(counts)
    model.train(**BRIEF | {"max_epochs": 1})
    held_out = model.validation_indices
    first = model.get_elbo(indices=held_out)
    model.train(**BRIEF | {"max_epochs": 30}, plan_kwargs={"n_epochs_kl_warmup": 1})
    assert model.get_elbo(indices=held_out) > first + 10
    # no model knows more of the counts, given z, than the one that made them
    truth = -counts.obs["log_likelihood"].to_numpy()[held_out].mean()
    assert -model.get_elbo(indices=held_out) > truth


def test_every_cell_counts_once_in_the_marginal_likelihood(model):
    """The last of three minibatches has one cell."""
    one = {"n_mc_samples": 40, "batch_size": 149, "indices": np.arange(299)}
    scvi.settings.seed = 0
    mean = model.get_marginal_ll(**one)
    scvi.settings.seed = 0
    per_cell = model.get_marginal_ll(**one, return_mean=False)
    np.testing.assert_allclose(mean, per_cell.double().mean())


def test_same_seed_same_model(counts):
    BetaVI.setup_anndata(counts)
    latents = []
    for _ in range(2):
        scvi.settings.seed = 7
        model = BetaVI(counts)
        model.train(**BRIEF)
        latents.append(model.get_latent_representation())
    np.testing.assert_array_equal(*latents)


ORDERS = {
    "sorted": np.arange(0, 300, 3),
    "reversed": np.arange(299, -1, -1),
    "shuffled": np.random.default_rng(0).permutation(300),
    "repeated": np.array([5, 1, 3, 5, 5, 299]),
    "mask": np.arange(300) % 7 == 2,
}


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("container", [sparse.csr_matrix, sparse.csc_matrix, np.asarray])
def test_query_order_does_not_matter_backed_or_not(counts, model, order, container, tmp_path):
    whole = model.get_latent_representation()
    other = counts.copy()
    other.X = container(counts.X.toarray().astype(np.float32))
    other.write_h5ad(tmp_path / "x.h5ad")
    backed = anndata.read_h5ad(tmp_path / "x.h5ad", backed="r")
    for adata in (counts, other, backed):
        for batch_size in (None, 7):
            latent = model.get_latent_representation(
                adata, indices=ORDERS[order], batch_size=batch_size
            )
            np.testing.assert_allclose(latent, whole[ORDERS[order]], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "container",
    [sparse.csr_matrix, sparse.csr_array, sparse.csc_matrix, np.asarray, np.asfortranarray],
)
@pytest.mark.parametrize("dtype", [np.int32, np.float32, np.float64])
def test_training_is_the_same_from_every_container(counts, container, dtype):
    """Where the counts are kept must not change what is learnt of them."""
    dense = counts.X.toarray()
    latents = []
    for x in (sparse.csr_matrix(dense), container(dense.astype(dtype))):
        scvi.settings.seed = 0
        adata = anndata.AnnData(x, obs=counts.obs[["batch"]].copy())
        BetaVI.setup_anndata(adata, batch_key="batch")
        model = BetaVI(adata)
        model.train(**BRIEF)
        latents.append(model.get_latent_representation())
    np.testing.assert_array_equal(*latents)


def test_training_from_a_file(counts, tmp_path):
    counts.write_h5ad(tmp_path / "x.h5ad")
    backed = anndata.read_h5ad(tmp_path / "x.h5ad", backed="r+")
    BetaVI.setup_anndata(backed, batch_key="batch")
    model = BetaVI(backed)
    model.train(**BRIEF)
    latents = model.get_latent_representation(), model.get_latent_representation(counts)
    np.testing.assert_array_equal(*latents)


def test_sparse_minibatches_train_the_same(counts):
    latents = []
    for load_sparse_tensor in (False, True):
        scvi.settings.seed = 0
        BetaVI.setup_anndata(counts)
        model = BetaVI(counts)
        model.train(load_sparse_tensor=load_sparse_tensor, **BRIEF)
        latents.append(model.get_latent_representation())
    np.testing.assert_allclose(*latents, rtol=1e-4, atol=1e-5)


def test_size_factors_scale_the_mean(counts):
    BetaVI.setup_anndata(counts, size_factor_key="size")
    model = BetaVI(counts)
    model.train(**BRIEF)
    means, other = [], counts.copy()
    other.obs["size"] *= 2
    for adata in (counts, other):
        torch.manual_seed(0)
        means.append(model.get_likelihood_parameters(adata)["mean"])
    np.testing.assert_allclose(means[1], 2 * means[0], rtol=1e-5)


def test_library_prior_is_that_of_each_batch(counts):
    BetaVI.setup_anndata(counts, batch_key="batch")
    module = BetaVI(counts, use_observed_lib_size=False).module
    log_totals = np.log(np.asarray(counts.X.sum(axis=1)).ravel())
    for code, name in enumerate(["batch_0", "batch_1"]):
        here = log_totals[(counts.obs["batch"] == name).to_numpy()]
        assert module.library_log_means[0, code].item() == pytest.approx(here.mean(), rel=1e-5)
        assert module.library_log_vars[0, code].item() == pytest.approx(here.var(), rel=1e-5)


@pytest.mark.parametrize(
    ("kwargs", "match"),
    [
        ({"n_latent": 0}, "n_latent must be a whole number of at least 1, not 0"),
        ({"n_latent": -3}, "not -3"),
        ({"n_latent": "10"}, "not '10'"),
        ({"n_hidden": 0}, "n_hidden must be"),
        (
            {"gene_likelihood": ["zinb"]},
            "'zinb', 'nb', 'poisson', 'lognormal', 'normal', 'bernoulli', 'nb_mixture', not",
        ),
        (
            {"gene_likelihood": "gaussian"},
            "'zinb', 'nb', 'poisson', 'lognormal', 'normal', 'bernoulli', 'nb_mixture', not 'gaussian'",
        ),
        ({"dispersion": "gene-donor"}, "'gene', 'gene-batch', 'gene-label', 'gene-cell'"),
        ({"latent_distribution": "vmf"}, "'normal', 'ln', 'deterministic'"),
    ],
)
def test_what_makes_no_model_is_refused_with_the_choices(counts, kwargs, match):
    BetaVI.setup_anndata(counts)
    with pytest.raises(ValueError, match=match):
        BetaVI(counts, **kwargs)


def test_a_dispersion_per_label_needs_labels(counts):
    BetaVI.setup_anndata(counts)
    with pytest.warns(UserWarning, match="labels_key"):
        BetaVI(counts, dispersion="gene-label")


def test_an_object_that_is_not_set_up(counts):
    with pytest.raises(ValueError, match="setup_anndata"):
        BetaVI(counts)


def test_a_model_without_an_object_waits_for_a_datamodule(counts):
    BetaVI.setup_anndata(counts, batch_key="batch")
    datamodule = DataSplitter(BetaVI._get_most_recent_anndata_manager(counts))
    datamodule.n_vars, datamodule.n_batch = counts.n_vars, 2
    with pytest.warns(UserWarning, match="datamodule"):
        model = BetaVI(n_latent=3)
    assert model.module is None
    model.train(datamodule=datamodule, **BRIEF)
    assert model.module.options.n_latent == 3


def test_the_summary_shows_the_parameters(model, capsys):
    print(model)
    assert "n_latent: 4" in capsys.readouterr().out


@pytest.mark.parametrize("prior", ["vamp", "mixture"])
@pytest.mark.parametrize("latent_distribution", ["normal", "ln"])
def test_every_prior_trains_answers_and_is_saved(counts, tmp_path, prior, latent_distribution):
    BetaVI.setup_anndata(counts, batch_key="batch", categorical_covariate_keys=["donor"])
    model = BetaVI(
        counts,
        prior=prior,
        n_components=7,
        latent_distribution=latent_distribution,
        encode_covariates=True,
    )
    model.train(**BRIEF)
    assert np.isfinite(model.get_marginal_ll(n_mc_samples=5))
    change = model.differential_expression(idx1=[0, 1, 2], idx2=[7, 8, 9], silent=True)
    assert change["bayes_factor"].notna().all()
    with pytest.raises(NotImplementedError, match=f"standard normal prior, not {prior!r}"):
        model.differential_expression(idx1=[0], idx2=[7], weights="importance", silent=True)
    model.save(tmp_path / "model")
    loaded = BetaVI.load(tmp_path / "model", counts)
    scvi.settings.seed = 0
    elbo = model.get_elbo()
    scvi.settings.seed = 0
    assert loaded.get_elbo() == elbo


def test_unknown_priors_and_components(counts):
    BetaVI.setup_anndata(counts)
    with pytest.raises(
        ValueError, match="'standard_normal', 'vamp', 'mixture', 'independent', not 'normal'"
    ):
        BetaVI(counts, prior="normal")
    with pytest.raises(ValueError, match="n_components must be a whole number"):
        BetaVI(counts, prior="vamp", n_components=0)
