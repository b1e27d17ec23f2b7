from __future__ import annotations

import inspect

import numpy as np
import pytest
import scvi
import torch
from torch import nn

from betavi import BetaVI
from betavi.metrics import disentanglement
from betavi.nn import BetaBias, BetaFiLM, BetaGate, BetaLinear
from tests.conftest import BRIEF, getters, slow_where
from tests.model.collapse.answers import plain

BETAS = [0.1, 0.3, 1.0, 3.0, 10.0, 30.0]

ARGUMENTS = {
    "transfer_labels": {
        "adata": None,
        "labels_key": "cell_type",
        "indices": [0, 1, 2],
        "show_progress": False,
    },
    "differential_expression": {"groupby": "cell_type", "silent": True},
    "differential_abundance": {"sample_key": "donor"},
    "generate": {"n_cells": 20, "source": "cells", "show_progress": False},
    "interpolate": {"start": 0, "end": 1, "n_steps": 3},
    "get_feature_correlation_matrix": {"n_samples": 2},
    "get_latent_library_size": {"give_mean": False},
    "get_marginal_ll": {"n_mc_samples": 3, "return_mean": False},
    "posterior_predictive_sample": {"n_samples": 2},
}
"""What a getter is asked beside β."""

INDIFFERENT = {"find_holes", "get_latent_library_size", "transfer_labels"}
"""Getters that may return the same for two values of β. Library sizes are observed. There are no holes.
The latent space is used for labels only if it lowers the log loss."""

SLOW = {
    "archetype", "differential_expression", "find_holes", "interpolate", "latent_density",
    "posterior_predictive_sample", "support",
}  # fmt: skip


@pytest.fixture
def multi(counts):
    """A model of many β, whose parts that read β are no longer at zero."""
    BetaVI.setup_anndata(counts, batch_key="batch", labels_key="cell_type")
    model = BetaVI(counts, n_latent=4, beta=(0.1, 10))
    model.train(**BRIEF)
    for part in model.module.modules():
        if isinstance(part, BetaGate | BetaFiLM | BetaLinear):
            for parameter in part.parameters():
                nn.init.normal_(parameter, std=0.2)
    return model


@pytest.mark.parametrize("name", slow_where(getters(BetaVI), SLOW))
def test_every_getter_takes_beta(multi, name):
    getter = getattr(multi, name)
    assert inspect.signature(getter).parameters["beta"].default is None
    assert "beta\n    Only for a model trained on a range of β: the β to use" in inspect.getdoc(
        getter
    )
    if name == "get_importance_weights":
        # called by differential expression, with its distributions
        return
    answers = {}
    for beta in (0.2, 5.0):
        scvi.settings.seed = 0
        answer = getter(beta=beta, **ARGUMENTS.get(name, {}))
        if name == "denoise":
            answer = multi.adata.layers["denoised"].copy()
        answers[beta] = multi.adata.obsm if answer is None else plain(answer)
    assert multi.module.beta_condition.beta == 1.0
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
    assert multi.module.beta_condition.beta == 1.0


def test_getters_refuse_a_beta_that_was_not_trained(multi, model):
    with pytest.raises(ValueError, match="outside the range"):
        multi.get_elbo(beta=11)
    assert np.isfinite(model.get_elbo(beta=1.0))
    with pytest.raises(ValueError, match="trained with one β, 1"):
        model.get_elbo(beta=2.0)


@pytest.mark.parametrize("beta", [None, 4.0])
def test_a_minified_object_answers_at_its_beta(multi, beta, tmp_path):
    keys = ["X_latent_qzm", "X_latent_qzv"]
    before = {}
    for other in (beta, 0.3):
        distributions = multi.get_latent_representation(return_dist=True, beta=other)
        multi.adata.obsm.update(zip(keys, distributions, strict=True))
        scvi.settings.seed = 0
        before[other] = multi.get_normalized_expression(beta=other, return_numpy=True)
    distributions = multi.get_latent_representation(return_dist=True, beta=beta)
    multi.adata.obsm.update(zip(keys, distributions, strict=True))
    with pytest.raises(ValueError, match="outside the range"):
        multi.minify_adata(beta=11.0)
    with pytest.raises(
        ValueError, match=r"posteriors in .* are not the model's posteriors at beta=0\.3"
    ):
        multi.minify_adata(beta=0.3)
    counts, uns = multi.adata, dict(multi.adata.uns)
    multi.minify_adata(beta=beta)
    assert counts.uns.keys() == uns.keys()
    multi.save(tmp_path / "model", save_anndata=True)
    for minified in (multi, BetaVI.load(tmp_path / "model")):
        for said in (beta, None):
            scvi.settings.seed = 0
            found = minified.get_normalized_expression(beta=said, return_numpy=True)
            np.testing.assert_allclose(found, before[beta], rtol=1e-4)
        assert not np.allclose(found, before[0.3], rtol=1e-4)
        with pytest.raises(ValueError, match=f"it holds posteriors at beta={beta or 1:g} only"):
            minified.get_normalized_expression(beta=2.0)
        for ask in (minified.rate_distortion, minified.score_counts, minified.raw_counts):
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
        if isinstance(part, BetaGate | BetaFiLM | BetaLinear | BetaBias)
    }
    assert {type(part) for part in parts.values()} == {BetaGate, BetaFiLM, BetaLinear, BetaBias}
    for name, part in parts.items():
        for key, value in part.state_dict().items():
            np.testing.assert_array_equal(value, theirs[name].state_dict()[key])


@pytest.mark.slow
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
    with pytest.raises(ValueError, match="trained with one β"):
        model.rate_distortion([0.5, 1.0])
    with pytest.raises(ValueError, match=r"only 1 point.*beta=\(0.1, 10\)"):
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
    with pytest.raises(ValueError, match="no rate for β to weight"):
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
    with pytest.raises(KeyError, match=r"no column 'celltype'. Did you mean 'cell_type'"):
        multi.rate_distortion(labels_key="celltype")
    with pytest.raises(ValueError, match="`indices` selects no cell"):
        multi.rate_distortion(indices=[], labels_key="cell_type")
    with pytest.raises(ValueError, match="outside the range"):
        multi.rate_distortion([100.0])


def test_a_rate_at_the_end_of_the_curve_is_answered(multi):
    held_out = multi.validation_indices
    curve = multi.rate_distortion(indices=held_out)
    for rate in (curve["rate"].min(), curve["rate"].max()):
        beta = multi.suggest_beta("rate", rate=rate).beta
        assert np.isfinite(multi.get_elbo(beta=beta))


def test_a_named_normalisation_switches_no_other_on(counts):
    BetaVI.setup_anndata(counts)
    for kwargs in ({}, {"use_layer_norm": "both"}, {"use_batch_norm": "none"}):
        parts = [type(part) for part in BetaVI(counts, beta=(0.1, 10), **kwargs).module.modules()]
        assert parts.count(torch.nn.LayerNorm) == 2
        assert parts.count(torch.nn.BatchNorm1d) == 0


def test_labels_of_common_and_rare_types(multi):
    multi.adata.obs["mine"] = multi.adata.obs["cell_type"].astype(str)
    multi.adata.obs.iloc[:7, multi.adata.obs.columns.get_loc("mine")] = "few"
    curve = multi.rate_distortion([1.0], labels_key="mine")
    shares = multi.adata.obs["mine"].value_counts(normalize=True)
    assert curve.attrs["rare"] == sorted(shares.index[shares < 0.05])
    assert "few" in curve.attrs["rare"]
    assert 0 <= curve["agreement_rare"].item() <= 1
    assert 0 < curve["agreement_common"].item() <= 1


def test_what_is_rare_is_a_matter_of_the_whole_object_and_of_labelled_cells(multi):
    mine = multi.adata.obs["cell_type"].astype(str)
    mine.iloc[:7], mine.iloc[7:100] = "few", None
    multi.adata.obs["mine"] = mine
    # of these seven, all are of the rare type
    curve = multi.rate_distortion([1.0], indices=range(7), labels_key="mine")
    assert "few" in curve.attrs["rare"]
    assert curve["agreement_rare"].item() == 1
    assert np.isnan(curve["agreement_common"].item())
    found = {}
    for name, indices in {"with": None, "without": np.flatnonzero(mine.notna())}.items():
        found[name] = multi.rate_distortion([1.0], indices=indices, labels_key="mine")
    columns = ["agreement_common", "agreement_rare"]
    np.testing.assert_array_equal(found["with"][columns], found["without"][columns])


def test_axes_are_judged_as_by_disentanglement(multi):
    labels = multi.adata.obs["cell_type"].astype(str)
    labels.iloc[:30] = None
    multi.adata.obs["mine"] = labels
    cells = np.arange(100)
    curve = multi.rate_distortion([0.1, 10.0], indices=cells, labels_key="mine", n_samples=1)
    for row in curve.itertuples():
        z = multi.get_latent_representation(beta=row.beta, indices=cells)
        judged = disentanglement(z, labels.iloc[cells], n_permutations=0, n_bootstrap=0)
        expected = judged.table.loc["latent", "value"]
        for name in ("LMS", "MSAS", "MSGS"):
            assert getattr(row, name) == pytest.approx(expected[name], abs=1e-5)
    one = multi.rate_distortion([1.0], indices=[40, 41], labels_key="mine", n_samples=1)
    assert one[["LMS", "MSAS", "MSGS"]].isna().all(axis=None) == (
        labels.iloc[40] == labels.iloc[41]
    )


def ordered(curve):
    rate, distortion = curve["rate"].to_numpy(), curve["distortion"].to_numpy()
    # a thousandth for the draws and the cells held out
    slack = 1e-3 * distortion[0]
    return (
        (np.diff(rate) < 0).all()
        and (np.diff(distortion) > -slack).all()
        and (distortion[-1] > distortion[0])
    )


@pytest.mark.slow
def test_the_rate_falls_and_the_distortion_rises_along_beta(counts):
    BetaVI.setup_anndata(counts)
    model = BetaVI(counts, n_latent=4, beta=(0.1, 30))
    model.train(**BRIEF | {"max_epochs": 100})
    assert ordered(model.rate_distortion(BETAS, indices=model.validation_indices, n_samples=100))


@pytest.mark.slow
@pytest.mark.parametrize(
    "file",
    [
        "kang_muscat.h5ad",
        "kang_stim_ctrl_2000.h5ad",
        "norman19_mcfaline23_counts.h5ad",
        "pancreas_3696x2000.h5ad",
        "pbmc_frozen_donorA.h5ad",
        "RNAmix_celseq2_sortseq.h5ad",
        "zeisel_1464x1000.h5ad",
    ],
)
def test_the_rate_falls_and_the_distortion_rises_on_real_counts(real, file):
    adata = real(file)
    # the most expressed genes do: what is tested is the order, not the fit
    totals = np.asarray(adata.X.sum(axis=0)).ravel()
    adata = adata[:, np.sort(totals.argsort()[-500:])].copy()
    BetaVI.setup_anndata(adata, keep_empty_cells=True)
    model = BetaVI(adata, beta=(0.1, 30))
    # about six hundred steps, below which the ends of the range are not fitted
    model.train(**BRIEF | {"max_epochs": max(15, 75_000 // adata.n_obs)})
    assert ordered(model.rate_distortion(BETAS, indices=model.validation_indices, n_samples=20))


@pytest.mark.slow
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
        model.train(**BRIEF | {"max_epochs": 200}, plan_kwargs={"one_cycle": 2e-2})
        curve = model.rate_distortion(indices=model.train_indices, n_samples=20)
        distortion[name] = curve["distortion"].item()
    assert distortion["zero"] == pytest.approx(distortion["autoencoder"], rel=0.01)
    # which is no matter of course
    assert distortion["one"] > distortion["autoencoder"] + 2 * abs(
        distortion["zero"] - distortion["autoencoder"]
    )
