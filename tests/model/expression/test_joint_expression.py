"""Abilities that JointVI shares with BetaVI, against BetaVI, torch's distributions and itself."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from anndata import AnnData
from mudata import MuData
from torch.distributions import NegativeBinomial, Normal, kl_divergence

from betavi import BetaVI, JointVI
from betavi.datasets import simulate_multiome
from tests.conftest import BRIEF

N_CELLS, N_GENES, TOTAL = 80, 15, 400
LIKELIHOODS = {"rna": "nb", "adt": "nb_mixture", "atac": "bernoulli"}


# -- one modality: the same weights in a BetaVI ---------------------------------------------------


def of_one_modality(gene_likelihood):
    """A JointVI of one modality, and a BetaVI with its weights; all cells have the same total."""
    rng = np.random.default_rng(0)
    profiles = rng.dirichlet(np.ones(N_GENES), N_CELLS)
    counts = rng.multinomial(TOTAL, profiles).astype(np.float32)
    names = pd.DataFrame(index=[f"gene_{number}" for number in range(N_GENES)])
    obs = pd.DataFrame(
        {"batch": ["a", "b"] * (N_CELLS // 2)},
        index=[f"cell_{number}" for number in range(N_CELLS)],
    )
    adata = AnnData(counts, obs=obs, var=names)
    mdata = MuData({"rna": AnnData(counts, obs=obs[[]], var=names)})
    mdata.obs["batch"] = obs["batch"]
    networks = {"n_latent": 3, "n_hidden": 16, "use_batch_norm": "none", "use_layer_norm": "both"}
    JointVI.setup_mudata(mdata, {"rna": gene_likelihood}, batch_key="batch")
    joint = JointVI(mdata, fusion="single", **networks)
    joint.train(**BRIEF)
    BetaVI.setup_anndata(adata, batch_key="batch")
    single = BetaVI(adata, gene_likelihood=gene_likelihood, **networks)
    weights = {key.replace(".rna.", ".X."): x for key, x in joint.module.state_dict().items()}
    wanted = single.module.state_dict()
    single.module.load_state_dict({key: weights[key] for key in wanted})
    single.module.eval()
    single.is_trained_ = True
    return joint, single


@pytest.fixture(scope="module", params=["zinb", "nb", "lognormal"])
def twins(request):
    return of_one_modality(request.param)


def asked(model, name, **kwargs):
    torch.manual_seed(1)
    return getattr(model, name)(**kwargs)


@pytest.mark.parametrize("n_samples", [1, 3])
def test_parameters_are_those_of_a_single_model(twins, n_samples):
    joint, single = (asked(m, "get_likelihood_parameters", n_samples=n_samples) for m in twins)
    assert set(joint) == {"rna"}
    assert set(joint["rna"]) == set(single)
    for word, value in single.items():
        np.testing.assert_allclose(joint["rna"][word], value, rtol=1e-4, err_msg=word)


@pytest.mark.parametrize(
    "kwargs", [{}, {"n_samples": 3}, {"transform_batch": "b", "indices": [5, 2]}], ids=str
)
def test_predictive_draws_are_those_of_a_single_model(twins, kwargs):
    joint, single = (asked(m, "posterior_predictive_sample", **kwargs).todense() for m in twins)
    np.testing.assert_allclose(joint, single, rtol=1e-4)


@pytest.mark.parametrize("correlation_type", ["spearman", "pearson"])
def test_correlations_are_those_of_a_single_model(twins, correlation_type):
    kwargs = {"n_samples": 4, "correlation_type": correlation_type}
    if not twins[1].module.likelihood("X").is_gamma_poisson:
        for model in twins:
            with pytest.raises(NotImplementedError, match="Feature correlations need"):
                model.get_feature_correlation_matrix(**kwargs)
        return
    joint, single = (asked(m, "get_feature_correlation_matrix", **kwargs) for m in twins)
    pd.testing.assert_frame_equal(joint, single, rtol=1e-3, atol=1e-3)


def test_scores_are_those_of_a_single_model(twins):
    joint, single = (asked(m, "score_counts", n_samples=4) for m in twins)
    assert set(joint) == {"rna"}
    theirs, ours = single.row(), joint["rna"].row()
    np.testing.assert_allclose(list(ours.values()), list(theirs.values()), rtol=1e-4)
    np.testing.assert_allclose(
        joint["rna"].predicted.variance, single.predicted.variance, rtol=1e-3
    )


# -- several modalities, of which cells lack some -------------------------------------------------


@pytest.fixture(scope="module")
def mosaic():
    mdata = simulate_multiome(
        n_cells=150, n_genes=20, n_proteins=6, n_peaks=25, n_batches=2,
        missing={"adt": 0.4, "rna": 0.3}, seed=1,
    )  # fmt: skip
    JointVI.setup_mudata(mdata, LIKELIHOODS, batch_key="batch")
    model = JointVI(mdata, n_latent=3, n_hidden=16)
    model.train(**BRIEF)
    return model


def has(model, name):
    return model.adata.obsmap[name] > 0


@pytest.mark.slow
def test_a_score_is_that_of_torch_distributions(mosaic):
    """RNA from the posterior given RNA: the terms are computed here from the decoder's parameters."""
    cells = np.flatnonzero(has(mosaic, "rna"))
    mean, variance = mosaic.get_latent_representation(
        indices=cells, modalities="rna", return_dist=True
    )
    q = Normal(torch.as_tensor(mean), torch.as_tensor(variance).sqrt())
    rate = kl_divergence(q, Normal(0.0, 1.0)).sum(dim=1)
    counts = torch.as_tensor(mosaic.raw_counts(cells, modality="rna").toarray()).float()
    codes = mosaic.adata.obs["batch"].astype("category").cat.codes.to_numpy()[cells]
    batch = torch.as_tensor(codes.astype(np.int64))[:, None]
    torch.manual_seed(2)
    nats = []
    with torch.no_grad():
        for _ in range(200):
            px = mosaic.module.generative(
                q.sample(), {"rna": counts.sum(dim=1, keepdim=True).log()}, batch
            )["px"]["rna"]
            plain = NegativeBinomial(px.theta, logits=px.mu.log() - px.theta.log())
            nats.append(-plain.log_prob(counts).sum(dim=1))
    nats = torch.stack(nats)
    score = asked(mosaic, "score_counts", n_samples=200)["rna"]
    assert score.rate == pytest.approx(rate.mean().item(), rel=1e-4)
    # a standard error of the mean over cells of 200 draws, three times
    error = 3 * (nats.std(dim=0) / 200**0.5).mean().item()
    assert score.distortion == pytest.approx(nats.mean().item(), abs=error)
    assert score.total == pytest.approx(counts.sum(dim=1).mean().item())
    np.testing.assert_allclose(score.observed.mean, counts.mean(dim=0), rtol=1e-5)


def test_a_score_reads_no_other_modality(mosaic):
    """Scores stay the same when the counts of the other modalities are wiped."""
    rna = asked(mosaic, "score_counts", modalities="rna")
    assert list(rna) == ["rna"]
    other = mosaic.adata.copy()
    for name in ("adt", "atac"):
        other[name].X = other[name].X * 0
    with pytest.warns(UserWarning, match="no counts"):
        wiped = asked(mosaic, "score_counts", adata=other, modalities="rna")
    assert wiped["rna"].row() == pytest.approx(rna["rna"].row(), rel=1e-5)


def test_scores_of_chosen_cells_and_modalities(mosaic):
    both = np.flatnonzero(has(mosaic, "adt") & has(mosaic, "rna"))[:20]
    lacking = np.flatnonzero(~has(mosaic, "adt"))[:20]
    found = asked(mosaic, "score_counts", indices=both, modalities=["adt"])["adt"]
    mixed = np.concatenate([both, lacking])
    again = asked(mosaic, "score_counts", indices=mixed, modalities=["adt"])["adt"]
    # cells that lack the modality have no part in its score
    assert again.total == found.total
    np.testing.assert_array_equal(again.observed.zeros, found.observed.zeros)
    assert np.isnan(asked(mosaic, "score_counts", modalities="atac")["atac"].evidence)
    with pytest.raises(ValueError, match="no modality 'protein'"):
        mosaic.score_counts(modalities="protein")


def test_parameters_of_every_modality_for_every_cell(mosaic):
    found = asked(mosaic, "get_likelihood_parameters")
    assert list(found) == list(LIKELIHOODS)
    for name, parameters in found.items():
        n_features = mosaic.adata[name].n_vars
        for value in parameters.values():
            assert value.shape == (150, n_features)
            assert np.isfinite(value).all()
    # at the typical size, whatever a cell's own
    usual = mosaic.module.typical("rna").usual.exp().item()
    np.testing.assert_allclose(found["rna"]["mean"].sum(axis=1), usual, rtol=1e-3)
    several = asked(mosaic, "get_likelihood_parameters", n_samples=2, indices=[3, 1])
    assert several["adt"]["mean"].shape == (2, 2, 6)
    torch.manual_seed(1)
    mean = mosaic.get_likelihood_parameters(n_samples=2, indices=[3, 1], give_mean=True)
    np.testing.assert_allclose(mean["adt"]["mean"], several["adt"]["mean"].mean(axis=0), rtol=1e-5)


def test_predictive_draws_have_the_moments_of_the_likelihood(mosaic):
    cells = np.r_[np.flatnonzero(~has(mosaic, "rna"))[:5], np.flatnonzero(has(mosaic, "rna"))[:5]]
    n_samples = 4000
    draws = asked(
        mosaic, "posterior_predictive_sample", indices=cells, n_samples=n_samples
    ).todense()
    assert draws.shape == (10, 20, n_samples)
    assert (draws == np.round(draws)).all()
    parameters = asked(
        mosaic, "get_likelihood_parameters", indices=cells, n_samples=n_samples, give_mean=True
    )
    error = draws.std(axis=2) / np.sqrt(n_samples)
    assert (np.abs(draws.mean(axis=2) - parameters["rna"]["mean"]) < 6 * error + 0.05).all()


@pytest.mark.slow
def test_predictive_draws_of_another_modality_and_of_some_features(mosaic):
    draws = asked(mosaic, "posterior_predictive_sample", modality="adt").todense()
    assert draws.shape == (150, 6)
    assert (draws == np.round(draws)).all()
    few = ["protein_4", "protein_0"]
    some = asked(
        mosaic, "posterior_predictive_sample", modality="adt", gene_list=few, n_samples=500
    )
    assert some.shape == (150, 2, 500)
    whole = asked(mosaic, "posterior_predictive_sample", modality="adt", n_samples=500)
    means = [draws.todense().mean(axis=(0, 2)) for draws in (some, whole)]
    np.testing.assert_allclose(means[0], means[1][[4, 0]], rtol=0.05)
    with pytest.raises(KeyError, match="no feature 'gene_0'"):
        mosaic.posterior_predictive_sample(modality="adt", gene_list=["gene_0"])


def test_correlations_between_features_of_a_modality(mosaic):
    found = asked(mosaic, "get_feature_correlation_matrix", n_samples=5)
    assert found.index.tolist() == found.columns.tolist() == mosaic.adata["rna"].var_names.tolist()
    np.testing.assert_allclose(np.diag(found), 1, rtol=1e-6)
    np.testing.assert_allclose(found, found.T)
    with pytest.raises(NotImplementedError, match=r"correlations need .*, not 'nb_mixture'"):
        mosaic.get_feature_correlation_matrix(modality="adt")
    with pytest.raises(
        ValueError,
        match="'atac' has the likelihood 'bernoulli', which this method does not support",
    ):
        mosaic.get_feature_correlation_matrix(modality="atac")


def test_correlations_are_those_of_rates_of_all_cells(mosaic):
    """Without gamma noise, at a large theta, rates are expressions at one size."""
    model = mosaic.sibling(likelihoods={"rna": "poisson"})
    model.train(**BRIEF)
    assert model.module.likelihood("rna").is_gamma_poisson
    found = asked(model, "get_feature_correlation_matrix", correlation_type="pearson", n_samples=20)
    values = asked(
        model, "get_normalized_expression", n_samples=20, return_mean=False, batch_size=64
    )
    wanted = np.corrcoef(np.concatenate(list(values)), rowvar=False)
    assert np.abs(found.to_numpy() - wanted).max() < 0.1
