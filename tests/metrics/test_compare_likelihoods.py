from __future__ import annotations

import numpy as np
import pytest
import scvi
import torch

from betavi import BetaVI, JointVI
from betavi.datasets import simulate_multiome
from betavi.likelihoods import LIKELIHOODS
from betavi.metrics import compare_likelihoods
from tests.conftest import BRIEF


@pytest.mark.slow
def test_every_likelihood_is_scored_on_the_same_counts(counts):
    BetaVI.setup_anndata(counts, batch_key="batch")
    table = compare_likelihoods(BetaVI(counts, n_latent=4), list(LIKELIHOODS), **BRIEF)
    assert set(LIKELIHOODS) < set(table.index)
    bernoulli = table.loc["bernoulli"]
    assert np.isnan(bernoulli["elbo"])
    assert np.isfinite(bernoulli["detection"])
    rest = table.drop(index=["bernoulli", "observed", "autoencoder (zinb)"])
    assert np.isfinite(rest).all(axis=None)
    assert (rest["evidence"] >= rest["elbo"]).all()
    np.testing.assert_allclose(rest["elbo"], -rest["rate"] - rest["distortion"])
    autoencoder = table.loc["autoencoder (zinb)"]
    assert autoencoder["elbo"] == -np.inf
    assert np.isfinite(autoencoder["distortion"])
    assert table.loc["observed", "zero_fraction"] > 0
    assert (rest["zero_error"] > 0).all()


@pytest.mark.slow
def test_a_likelihood_of_counts_scores_as_its_elbo(model):
    score = model.score_counts(n_samples=200)
    elbos = [float(model.get_elbo()) for _ in range(100)]
    assert score.row()["elbo"] == pytest.approx(np.mean(elbos), abs=0.1)
    evidence = model.get_marginal_ll(n_mc_samples=200, return_mean=True)
    assert score.evidence == pytest.approx(evidence, abs=0.3)
    counts = model.raw_counts().toarray()
    np.testing.assert_allclose(score.observed.variance, counts.var(axis=0), rtol=1e-6)
    np.testing.assert_allclose(score.observed.zeros, (counts == 0).mean(axis=0))


@pytest.mark.slow
def test_the_rate_of_a_latent_library_size_counts(counts):
    BetaVI.setup_anndata(counts)
    model = BetaVI(counts, use_observed_lib_size=False)
    # two estimates of an evidence agree where posteriors are close to exact
    model.train(**BRIEF | {"max_epochs": 20})
    score = model.score_counts(n_samples=200)
    elbos = [float(model.get_elbo()) for _ in range(200)]
    assert score.row()["elbo"] == pytest.approx(np.mean(elbos), abs=0.3)
    evidence = model.get_marginal_ll(n_mc_samples=200, return_mean=True)
    assert score.evidence == pytest.approx(evidence, abs=0.5)


def test_siblings_hold_the_same_cells_out_without_a_seed(counts, monkeypatch):
    scvi.settings.seed = None
    BetaVI.setup_anndata(counts)
    made = []
    original = BetaVI.sibling
    monkeypatch.setattr(
        BetaVI, "sibling", lambda self, **kw: made.append(original(self, **kw)) or made[-1]
    )
    compare_likelihoods(BetaVI(counts), ["nb", "poisson"], n_components=None, **BRIEF)
    assert len(made) == 3
    held_out = [np.sort(model.validation_indices).tolist() for model in made]
    assert held_out[0] == held_out[1] == held_out[2]
    # models trained apart have each their own
    others = {name: BetaVI(counts) for name in "ab"}
    for model in others.values():
        model.train(**BRIEF)
    with pytest.raises(ValueError, match="were training cells of the model 'b'"):
        compare_likelihoods(others)


@pytest.mark.parametrize("beta", [1.0, (0.1, 10)])
def test_an_autoencoder_stands_beside_what_no_autoencoder_takes(counts, beta):
    BetaVI.setup_anndata(counts)
    table = compare_likelihoods(BetaVI(counts, beta=beta), ["nb"], free_bits=0.1, **BRIEF)
    assert np.isfinite(table["distortion"].iloc[:2]).all()


def test_fractions_have_no_probability(counts):
    counts.X = counts.X.log1p()
    with pytest.warns(UserWarning, match="not an integer"):
        BetaVI.setup_anndata(counts)
    model = BetaVI(counts)
    model.train(**BRIEF)
    with pytest.raises(ValueError, match="values are not integers"):
        model.score_counts()


@pytest.mark.slow
def test_predicted_moments_are_those_of_draws(model):
    score = model.score_counts(n_samples=100)
    draws = model.posterior_predictive_sample(n_samples=100).todense()
    np.testing.assert_allclose(score.predicted.zeros, (draws == 0).mean(axis=(0, 2)), atol=0.02)
    np.testing.assert_allclose(score.predicted.mean, draws.mean(axis=(0, 2)), rtol=0.1)


def test_one_draw_is_enough_to_ask(model):
    assert np.isfinite(model.score_counts(n_samples=1).evidence)


def test_trained_models_are_taken_as_they_are(model, counts):
    other = model.sibling(gene_likelihood="nb")
    with pytest.raises(ValueError, match="Train these models before the comparison: mine"):
        compare_likelihoods({"theirs": model, "mine": other})
    other.train(**BRIEF)
    table = compare_likelihoods({"theirs": model, "mine": other}, n_components=None)
    assert table.index.tolist() == ["theirs", "mine", "observed"]
    with pytest.raises(ValueError, match=r"not trained again\. Leave out max_epochs"):
        compare_likelihoods({"theirs": model}, max_epochs=3)


def test_cells_have_to_be_held_out(counts):
    BetaVI.setup_anndata(counts)
    model = BetaVI(counts)
    model.train(**BRIEF, train_size=1.0)
    with pytest.raises(ValueError, match="No cells were held out"):
        compare_likelihoods({"all": model})
    assert len(compare_likelihoods({"all": model}, indices=[0, 1, 2], n_components=None)) == 2


@pytest.mark.slow
def test_counts_beat_densities_on_real_counts(real):
    """The order of the lenses; the docs have the numbers of longer runs."""
    adata = real("kang_muscat.h5ad")
    BetaVI.setup_anndata(adata)
    table = compare_likelihoods(BetaVI(adata), **BRIEF | {"max_epochs": 15})
    elbo = table["elbo"]
    assert min(elbo["zinb"], elbo["nb"]) > elbo["poisson"] > elbo["lognormal"] > elbo["normal"]
    assert abs(elbo["zinb"] - elbo["nb"]) < 0.02 * abs(elbo["nb"])


# -- several modalities ---------------------------------------------------------------------------


@pytest.fixture
def joint():
    mdata = simulate_multiome(
        n_cells=150, n_genes=20, n_proteins=8, n_peaks=0, missing={"adt": 0.4, "rna": 0.2}
    )
    JointVI.setup_mudata(mdata, {"rna": "zinb", "adt": "nb_mixture"})
    return JointVI(mdata, n_latent=3, n_hidden=16)


def test_likelihoods_of_one_modality_of_several(joint):
    words = ["nb_mixture", "nb", "lognormal"]
    table = compare_likelihoods(joint, words, modality="adt", n_components=2, **BRIEF)
    assert table.index.tolist() == [
        *words, "autoencoder (nb_mixture)", "PCA, 2 components", "observed",
    ]  # fmt: skip
    rest = table.loc[[*words, "PCA, 2 components"]]
    assert np.isfinite(rest).all(axis=None)
    np.testing.assert_allclose(rest["elbo"], -rest["rate"] - rest["distortion"])
    assert table.loc["autoencoder (nb_mixture)", "elbo"] == -np.inf
    assert joint.registry_["setup_args"]["likelihoods"] == {"rna": "zinb", "adt": "nb_mixture"}
    assert not joint.is_trained


def test_trained_joint_models_are_scored_in_cells_that_have_the_modality(joint):
    other = joint.sibling(likelihoods={"adt": "nb"})
    joint.train(**BRIEF)
    split = {"external_indexing": [joint.train_indices, joint.validation_indices]}
    other.train(**BRIEF, datasplitter_kwargs=split)
    models = {"mixture": joint, "nb": other}
    table = compare_likelihoods(models, n_components=2, modality="adt")
    assert table.index.tolist() == ["mixture", "nb", "PCA, 2 components", "observed"]
    held_out = joint.validation_indices
    has = joint.adata.obsmap["adt"][held_out] > 0
    counts = joint.raw_counts(held_out[has], modality="adt").toarray()
    assert 0 < has.sum() < len(has)
    assert table.loc["observed", "zero_fraction"] == pytest.approx((counts == 0).mean())
    torch.manual_seed(0)
    again = compare_likelihoods(models, indices=held_out[has], n_components=None, modality="adt")
    torch.manual_seed(0)
    score = joint.score_counts(indices=held_out[has], modalities="adt")["adt"]
    assert again.loc["mixture", "elbo"] == pytest.approx(score.row()["elbo"], rel=1e-5)


def test_it_has_to_be_said_which_modality_is_compared(joint, model):
    with pytest.raises(
        ValueError,
        match=r"several modalities. Choose one with `modality`. The modalities are 'rna', 'adt'",
    ):
        compare_likelihoods(joint, ["nb"], **BRIEF)
    with pytest.raises(ValueError, match="no modality 'protein'"):
        compare_likelihoods(joint, ["nb"], modality="protein", **BRIEF)
    joint.train(**BRIEF)
    with pytest.raises(ValueError, match="Choose one with `modality`"):
        compare_likelihoods({"one": model, "several": joint.sibling(beta=2.0)})
    lacking = np.flatnonzero(joint.adata.obsmap["adt"] == 0)
    with pytest.raises(ValueError, match="No cells were held out"):
        compare_likelihoods({"a": joint}, indices=lacking, modality="adt")


def test_likelihoods_are_read_when_they_are_compared(counts, monkeypatch):
    BetaVI.setup_anndata(counts)
    few = {name: LIKELIHOODS[name] for name in ("nb", "bernoulli", "poisson")}
    monkeypatch.setattr("betavi.metrics.likelihoods.LIKELIHOODS", few)
    table = compare_likelihoods(BetaVI(counts), n_components=None, **BRIEF)
    assert table.index.tolist() == ["nb", "poisson", "autoencoder (nb)", "observed"]
