from __future__ import annotations

import inspect

import numpy as np
import pandas as pd
import pytest
import scvi
from torch import nn
from torch.distributions import Distribution

from betavi import BetaVI
from betavi.diagnostics import CountScore
from betavi.model.at_beta import GETTERS
from betavi.nn import Drift, Gate, Shift, Turn
from tests.conftest import BRIEF

BETAS = [0.1, 0.3, 1.0, 3.0, 10.0, 30.0]

ARGUMENTS = {
    "differential_expression": {"groupby": "cell_type", "silent": True},
    "differential_abundance": {"sample_key": "donor"},
    "get_feature_correlation_matrix": {"n_samples": 2},
    "get_latent_library_size": {"give_mean": False},
    "get_marginal_ll": {"n_mc_samples": 3, "return_mean": False},
    "posterior_predictive_sample": {"n_samples": 2},
}
"""What a getter is asked beside β."""

INDIFFERENT = {"get_latent_library_size"}
"""What does not depend on β, the library size being observed."""


@pytest.fixture
def multi(counts):
    """A model of many β, whose parts that read β are no longer at zero."""
    BetaVI.setup_anndata(counts, batch_key="batch", labels_key="cell_type")
    model = BetaVI(counts, n_latent=4, beta=(0.1, 10))
    model.train(**BRIEF)
    for part in model.module.modules():
        if isinstance(part, Gate | Shift | Turn):
            for parameter in part.parameters():
                nn.init.normal_(parameter, std=0.2)
    return model


def plain(answer):
    if isinstance(answer, pd.DataFrame):
        return answer.select_dtypes("number").to_numpy()
    if isinstance(answer, CountScore):
        return np.array(list(answer.row().values()))
    if isinstance(answer, dict):
        return np.concatenate([np.ravel(value) for value in answer.values()])
    if hasattr(answer, "todense"):
        return answer.todense()
    if isinstance(answer, Distribution):
        return answer.mean.numpy()
    return np.asarray(answer)


@pytest.mark.parametrize("name", GETTERS)
def test_every_getter_takes_beta(multi, name):
    getter = getattr(multi, name)
    assert inspect.signature(getter).parameters["beta"].default is None
    assert "beta\n    The β to answer at" in inspect.getdoc(getter)
    if name == "get_importance_weights":
        # called by differential expression, with its distributions
        return
    answers = {}
    for beta in (0.2, 5.0):
        scvi.settings.seed = 0
        answer = getter(beta=beta, **ARGUMENTS.get(name, {}))
        answers[beta] = multi.adata.obsm if answer is None else plain(answer)
    assert multi.module.dial.beta == 1.0
    if name not in INDIFFERENT | {"differential_abundance"}:
        assert not np.array_equal(answers[0.2], answers[5.0])


@pytest.mark.parametrize(
    "name", ["get_latent_representation", "get_normalized_expression", "get_likelihood_parameters"]
)
def test_answers_are_those_of_the_beta_asked_for(multi, name):
    answers = {}
    for beta in (None, 1.0, 0.2, 5.0):
        scvi.settings.seed = 0
        answers[beta] = plain(getattr(multi, name)(beta=beta))
    np.testing.assert_array_equal(answers[None], answers[1.0])
    assert not np.allclose(answers[0.2], answers[5.0])
    assert multi.module.dial.beta == 1.0


def test_getters_refuse_a_beta_that_was_not_trained(multi, model):
    with pytest.raises(ValueError, match="outside the range"):
        multi.get_elbo(beta=11)
    assert np.isfinite(model.get_elbo(beta=1.0))
    with pytest.raises(ValueError, match="one β, 1, and answers at no other"):
        model.get_elbo(beta=2.0)


def test_a_minified_object_answers_at_one_beta(multi):
    multi.adata.obsm["X_latent_qzm"], multi.adata.obsm["X_latent_qzv"] = (
        multi.get_latent_representation(return_dist=True)
    )
    multi.minify_adata()
    at_one = multi.get_normalized_expression(beta=1.0)
    assert at_one.shape == multi.adata.shape
    with pytest.raises(ValueError, match="minified: its posteriors are those at beta=1"):
        multi.get_normalized_expression(beta=2.0)
    for ask in (multi.rate_distortion, multi.score_counts, multi.raw_counts):
        with pytest.raises(ValueError, match="minified"):
            ask()


def test_a_model_of_many_survives_saving(multi, counts, tmp_path):
    multi.save(tmp_path / "model")
    loaded = BetaVI.load(tmp_path / "model", counts)
    for beta in (0.1, 1, 10):
        np.testing.assert_allclose(
            loaded.get_latent_representation(beta=beta), multi.get_latent_representation(beta=beta)
        )


def test_a_query_keeps_what_the_reference_says_of_beta(multi, counts):
    query = counts[:60].copy()
    query.obs["batch"] = "new"
    mapped = BetaVI.load_query_data(query, multi)
    mapped.train(**BRIEF)
    theirs = dict(multi.module.named_modules())
    parts = {
        name: part
        for name, part in mapped.module.named_modules()
        if isinstance(part, Gate | Shift | Turn | Drift)
    }
    assert {type(part) for part in parts.values()} == {Gate, Shift, Turn, Drift}
    for name, part in parts.items():
        for key, value in part.state_dict().items():
            np.testing.assert_array_equal(value, theirs[name].state_dict()[key])


def test_the_curve_agrees_with_the_getters(multi):
    curve = multi.rate_distortion([0.1, 1.0, 10.0], n_samples=200)
    np.testing.assert_allclose(curve["elbo"], -(curve["rate"] + curve["distortion"]))
    for row in curve.itertuples():
        elbos = [float(multi.get_elbo(beta=row.beta)) for _ in range(200)]
        assert row.elbo == pytest.approx(np.mean(elbos), abs=0.15)


def test_the_default_grid_has_both_ends_and_one(multi):
    betas = multi.rate_distortion(n_samples=1)["beta"]
    assert (betas.iloc[0], betas.iloc[-1], len(betas)) == (0.1, 10.0, 13)
    assert (betas == 1.0).any()
    assert betas.is_monotonic_increasing


def test_a_model_of_one_beta_has_one_point(counts):
    BetaVI.setup_anndata(counts)
    model = BetaVI(counts, beta=0.5)
    model.train(**BRIEF)
    curve = model.rate_distortion()
    assert curve["beta"].tolist() == [0.5]
    assert len(model.rate_distortion([0.5])) == len(model.rate_distortion([])) == 1
    with pytest.raises(ValueError, match="answers at no other"):
        model.rate_distortion([0.5, 1.0])
    with pytest.raises(ValueError, match="One point is nothing to choose from"):
        model.suggest_beta()


def test_an_autoencoder_has_an_infinite_rate(counts):
    BetaVI.setup_anndata(counts)
    model = BetaVI(counts, latent_distribution="deterministic")
    model.train(**BRIEF)
    (row,) = model.rate_distortion().itertuples()
    assert (row.rate, row.elbo, row.mutual_information) == (np.inf, -np.inf, np.inf)
    assert np.isfinite(row.distortion)


def test_an_autoencoder_has_no_range(counts):
    BetaVI.setup_anndata(counts)
    with pytest.raises(ValueError, match="no rate for β to weigh"):
        BetaVI(counts, latent_distribution="deterministic", beta=(0.1, 10))


@pytest.mark.parametrize(
    "kwargs",
    [
        {"prior": "vamp", "n_components": 9},
        {"prior": "mixture", "n_components": 9},
        {"use_observed_lib_size": False},
        {"batch_representation": "embedding", "encode_covariates": True},
        {"latent_distribution": "ln", "dispersion": "gene-cell", "gene_likelihood": "lognormal"},
        {"dispersion": "gene-batch", "n_layers": 2, "use_batch_norm": "both"},
    ],
    ids=lambda kwargs: "-".join(map(str, kwargs)),
)
def test_every_option_goes_with_a_range(counts, kwargs):
    BetaVI.setup_anndata(counts, batch_key="batch")
    model = BetaVI(counts, beta=(0.1, 10), **kwargs)
    model.train(**BRIEF)
    assert np.isfinite(model.rate_distortion([0.1, 10])).all(axis=None)


def test_bad_questions(multi):
    with pytest.raises(KeyError, match=r"obs\['celltype'\]. Did you mean 'cell_type'"):
        multi.rate_distortion(labels_key="celltype")
    with pytest.raises(ValueError, match="indices is empty"):
        multi.rate_distortion(indices=[])
    with pytest.raises(ValueError, match="outside the range"):
        multi.rate_distortion([100.0])


def test_labels_of_common_and_rare_types(multi):
    multi.adata.obs["mine"] = multi.adata.obs["cell_type"].astype(str)
    multi.adata.obs.iloc[:7, multi.adata.obs.columns.get_loc("mine")] = "few"
    curve = multi.rate_distortion([1.0], labels_key="mine")
    shares = multi.adata.obs["mine"].value_counts(normalize=True)
    assert curve.attrs["rare"] == sorted(shares.index[shares < 0.05])
    assert "few" in curve.attrs["rare"]
    assert 0 <= curve["agreement_rare"].item() <= 1
    assert 0 < curve["agreement_common"].item() <= 1


def ordered(curve):
    rate, distortion = curve["rate"].to_numpy(), curve["distortion"].to_numpy()
    # a thousandth for the draws and the cells held out
    slack = 1e-3 * distortion[0]
    return (
        (np.diff(rate) < 0).all()
        and (np.diff(distortion) > -slack).all()
        and (distortion[-1] > distortion[0])
    )


def test_the_rate_falls_and_the_distortion_rises_along_beta(counts):
    BetaVI.setup_anndata(counts)
    model = BetaVI(counts, n_latent=4, beta=(0.1, 30))
    model.train(**BRIEF | {"max_epochs": 100})
    assert ordered(model.rate_distortion(BETAS, indices=model.validation_indices, n_samples=100))


@pytest.mark.parametrize(
    "file",
    [
        "pancreas_3696x2000.h5ad",
        "kang_muscat.h5ad",
        "zeisel_1464x1000.h5ad",
        "norman19_mcfaline23_counts.h5ad",
    ],
)
def test_the_rate_falls_and_the_distortion_rises_on_real_counts(real, file):
    adata = real(file)
    BetaVI.setup_anndata(adata, keep_empty_cells=True)
    model = BetaVI(adata, beta=(0.1, 30))
    model.train(**BRIEF | {"max_epochs": 15})
    assert ordered(model.rate_distortion(BETAS, indices=model.validation_indices, n_samples=20))


def test_beta_of_zero_reconstructs_as_the_autoencoder_does(counts):
    BetaVI.setup_anndata(counts)
    distortion = {}
    for name, kwargs in {
        "autoencoder": {"latent_distribution": "deterministic"},
        "zero": {"beta": 0.0},
        "one": {"beta": 1.0},
    }.items():
        scvi.settings.seed = 0
        model = BetaVI(counts, n_latent=4, **kwargs)
        model.train(**BRIEF | {"max_epochs": 300}, plan_kwargs={"one_cycle": 2e-2})
        curve = model.rate_distortion(indices=model.train_indices, n_samples=20)
        distortion[name] = curve["distortion"].item()
    assert distortion["zero"] == pytest.approx(distortion["autoencoder"], rel=0.01)
    # which is no matter of course
    assert distortion["one"] > distortion["autoencoder"] + 2 * abs(
        distortion["zero"] - distortion["autoencoder"]
    )
