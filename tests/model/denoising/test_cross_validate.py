"""Denoising judged by itself: what the model says of its values, and what it leaves alone."""

from __future__ import annotations

import anndata
import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse

from betavi import BetaVI, JointVI
from betavi.datasets import simulate_counts, simulate_multiome
from betavi.diagnostics import BASELINES, new_count_interval
from betavi.model.denoising.estimate import ESTIMATES

BRIEF = {"max_epochs": 2, "enable_progress_bar": False}
QUIET = {"show_progress": False}
QUICK_RUN = {"max_epochs": 1, "enable_progress_bar": False}
QUICK = {"max_epochs": 50, "show_progress": False, "plan_kwargs": {"one_cycle": 1e-2}}


@pytest.fixture
def counts():
    return simulate_counts(n_cells=200, n_genes=30, n_batches=2)


@pytest.fixture(scope="module")
def overdispersed():
    """Rates that vary around those of their type, and genes that vary in no way but that."""
    adata = simulate_counts(n_cells=700, n_genes=60, seed=2)
    rng = np.random.default_rng(0)
    types = adata.obs["cell_type"].cat.codes.to_numpy()
    profile = rng.gamma(1.0, 4.0, size=(types.max() + 1, 60))
    rates = profile[types] * rng.gamma(1.0, 1.0, size=adata.shape)
    adata.X = sparse.csr_matrix(rng.poisson(rates).astype(np.float32))
    return adata


def test_every_method_is_scored_and_the_model_is_as_it_was(counts):
    counts.layers["c"] = counts.X.copy()
    counts.X = np.zeros(counts.shape, dtype=np.float32)
    counts.obs["score"] = np.linspace(0, 1, counts.n_obs)
    BetaVI.setup_anndata(counts, "c", "batch", continuous_covariate_keys=["score"])
    model = BetaVI(counts, n_latent=3)
    model.train(**BRIEF)
    weights = {name: w.clone() for name, w in model.module.state_dict().items()}
    before = set(counts.obs), set(counts.uns), set(counts.obsm), set(counts.layers)
    report = model.cross_validate_denoising(**QUIET)
    assert set(report.methods.index) == {*BASELINES, *ESTIMATES}
    assert (report.genes.index == counts.var_names).all()
    assert report.chosen in report.ties
    for name, now in model.module.state_dict().items():
        torch.testing.assert_close(now, weights[name], rtol=0, atol=0, equal_nan=True)
    assert (set(counts.obs), set(counts.uns), set(counts.obsm), set(counts.layers)) == before
    assert model.adata is counts
    again = model.cross_validate_denoising(seed=1, n_samples=3, **QUIET)
    assert again.methods.loc["raw counts", "poisson_loss"] != pytest.approx(
        report.methods.loc["raw counts", "poisson_loss"], rel=1e-6
    )


@pytest.mark.slow
def test_the_likelihood_that_made_the_counts_is_chosen(overdispersed):
    BetaVI.setup_anndata(overdispersed)
    model = BetaVI(overdispersed, n_latent=4, n_hidden=32)
    report = model.cross_validate_denoising({"gene_likelihood": ["poisson", "nb"]}, **QUICK)
    assert report.chosen == "posterior, gene_likelihood=nb"
    losses = report.methods["poisson_loss"]
    assert losses["posterior, gene_likelihood=nb"] < losses["mean, gene_likelihood=nb"]
    # a Poisson rate is known once z is
    assert losses["posterior, gene_likelihood=poisson"] == pytest.approx(
        losses["mean, gene_likelihood=poisson"]
    )
    assert not model.is_trained
    assert report.trusted_share > 0.9


@pytest.mark.slow
def test_beta_of_a_model_of_many_is_chosen_without_training_each(counts, monkeypatch):
    BetaVI.setup_anndata(counts)
    trained, train = [], BetaVI.train
    monkeypatch.setattr(
        BetaVI,
        "train",
        lambda self, *a, **k: (trained.append(self), train(self, *a, **k))[1],
    )
    candidates = {"beta": [0.5, 2.0], "n_latent": [2, 3]}
    model = BetaVI(counts, beta=(0.1, 10.0))
    report = model.cross_validate_denoising(candidates, max_epochs=1, **QUIET)
    assert len(trained) == 2
    assert {"posterior, beta=0.5, n_latent=2", "mean, beta=2.0, n_latent=3"} <= set(
        report.methods.index
    )
    losses = report.methods["poisson_loss"]
    assert losses["mean, beta=0.5, n_latent=2"] != losses["mean, beta=2.0, n_latent=2"]
    trained.clear()
    BetaVI(counts).cross_validate_denoising(candidates, max_epochs=1, **QUIET)
    assert len(trained) == 4


@pytest.mark.slow
def test_epochs_are_those_of_all_training_and_copies_do_not_matter(counts, monkeypatch, tmp_path):
    BetaVI.setup_anndata(counts)
    model = BetaVI(counts)
    for epochs in (3, 2):
        model.train(epochs, enable_progress_bar=False)
    asked = {}
    train = BetaVI.train
    monkeypatch.setattr(BetaVI, "train", lambda self, **k: (asked.update(k), train(self, 1))[1])
    BetaVI.setup_anndata(counts.copy())
    model.cross_validate_denoising({"n_latent": [2]}, **QUIET)
    assert asked["max_epochs"] == 5
    model.check_false_signals(**QUIET)
    model.save(tmp_path / "model", save_anndata=True)
    BetaVI.load(tmp_path / "model")
    model.cross_validate_denoising({"n_latent": [2]}, **QUIET)


@pytest.mark.slow
def test_telling_batches_apart_is_worth_nothing():
    """Genes differ between batches, and in nothing else."""
    rng = np.random.default_rng(0)
    batch = np.repeat([0, 1], 300)
    rates = rng.gamma(1.0, 2.0, size=(2, 60))[batch] * rng.lognormal(0, 0.3, size=(600, 1))
    adata = anndata.AnnData(sparse.csr_matrix(rng.poisson(rates).astype(np.float32)))
    adata.obs["batch"] = pd.Categorical(batch.astype(str))
    adata.X[:, 5] = 0
    adata.X.eliminate_zeros()
    BetaVI.setup_anndata(adata, batch_key="batch")
    model = BetaVI(adata, n_latent=3, n_hidden=32)
    report = model.cross_validate_denoising(**QUICK)
    assert report.trusted_share < 0.1
    assert report.genes["explained"].isna().sum() == 1
    assert not report.genes["trusted"].iloc[5]
    BetaVI.setup_anndata(adata)
    unaware = BetaVI(adata, n_latent=3, n_hidden=32).cross_validate_denoising(**QUICK)
    assert unaware.trusted_share > 0.5


def test_bad_candidates_are_told_before_anything_is_trained(counts, monkeypatch):
    BetaVI.setup_anndata(counts)
    model = BetaVI(counts, beta=(0.1, 10.0))
    monkeypatch.setattr(BetaVI, "train", lambda *_: pytest.fail("trained"))
    for candidates, error, words in [
        ({"gene_likelihood": "nb"}, ValueError, "must be a non-empty list, not 'nb'"),
        ({"n_latent": 5}, ValueError, "must be a non-empty list, not 5"),
        ({"n_latent": []}, ValueError, "must be a non-empty list"),
        ([{"n_latent": 5}], ValueError, "a dictionary such as"),
        ({"gene_likelihood": ["gamma"]}, ValueError, "'zinb'"),
        ({"n_latents": [5]}, TypeError, "n_latents"),
        ({"beta": [100.0]}, ValueError, "100"),
    ]:
        with pytest.raises(error, match=words):
            model.cross_validate_denoising(candidates, **QUIET)
    with pytest.raises(ValueError, match="between 0 and 1"):
        model.cross_validate_denoising(fraction=1.5, **QUIET)
    with pytest.raises(ValueError, match="n_samples"):
        model.cross_validate_denoising(n_samples=0, **QUIET)
    for share in (0, 1, 5):
        with pytest.raises(ValueError, match="between 0 and 1"):
            model.check_false_signals(share=share, **QUIET)
    with pytest.raises(ValueError, match="'cell_1'"):
        model.check_false_signals(["a", None, *["b"] * (counts.n_obs - 2)], **QUIET)
    with pytest.raises(KeyError, match=r"no column 'cell_typ'.*cell_type"):
        model.check_false_signals("cell_typ", **QUIET)
    with pytest.raises(ValueError, match="has 3 values"):
        model.check_false_signals([0, 1, 2], **QUIET)


def test_what_are_no_counts_and_minified_objects_are_refused(counts):
    counts.X = counts.X * 0.5
    BetaVI.setup_anndata(counts)
    model = BetaVI(counts, gene_likelihood="normal")
    with pytest.raises(ValueError, match="whole numbers"):
        model.cross_validate_denoising(**QUIET)
    with pytest.raises(ValueError, match="whole numbers"):
        model.check_false_signals(**QUIET)
    model.train(**BRIEF)
    counts.obsm["X_latent_qzm"], counts.obsm["X_latent_qzv"] = model.get_latent_representation(
        return_dist=True
    )
    model.minify_adata()
    for ask in (model.cross_validate_denoising, model.check_false_signals):
        with pytest.raises(ValueError, match="minified"):
            ask()


@pytest.mark.slow
def test_denoising_makes_up_relations_and_counts_do_not(overdispersed):
    BetaVI.setup_anndata(overdispersed, labels_key="cell_type")
    model = BetaVI(overdispersed, n_latent=4, n_hidden=32)
    table = model.check_false_signals(**QUICK)
    assert set(table.index) == {*BASELINES, *ESTIMATES}
    false = table["false_correlations"]
    assert false["raw counts"] < 0.02
    assert table.loc["raw counts", "false_markers"] < 0.1
    assert table.loc["raw counts", "markers"] > 0.5
    assert false["mean"] > 5 * max(false["raw counts"], 0.01)
    # the cell's own count takes some of it back
    assert false["raw counts"] <= false["posterior"] < false["mean"]
    assert table.loc["gene mean x depth", "false_correlations"] == 0
    by_column = model.check_false_signals("cell_type", **QUICK)
    assert by_column.loc["raw counts"].equals(table.loc["raw counts"])


@pytest.mark.slow
def test_each_modality_is_judged_in_the_cells_that_have_it():
    mdata = simulate_multiome(n_cells=300, n_batches=2, missing={"adt": 0.5, "rna": 0.2})
    mdata = mdata[np.random.default_rng(0).permutation(mdata.n_obs)].copy()
    joint = {"rna": "nb", "adt": "nb_mixture", "atac": "bernoulli"}
    JointVI.setup_mudata(mdata, joint, batch_key="batch")
    model = JointVI(mdata, n_latent=4, n_hidden=32)
    reports = model.cross_validate_denoising({"n_latent": [4]}, **QUICK)
    assert set(reports) == {"rna", "adt"}
    for name, report in reports.items():
        counts = mdata[name].X.toarray()
        assert (report.genes.index == mdata[name].var_names).all()
        # in the order of its own cells: of any other they would be far off
        np.testing.assert_allclose(report.genes["mean"], 0.9 * counts.mean(axis=0), rtol=0.2)
        assert report.methods.loc["posterior, n_latent=4", "explained"] > 0.05
    assert "denoised" not in mdata["rna"].layers
    JointVI.setup_mudata(mdata, {"atac": "bernoulli"}, batch_key="batch")
    with pytest.raises(ValueError, match="No modality has molecule counts"):
        JointVI(mdata).cross_validate_denoising(**QUIET)


def test_false_signals_of_a_modality_are_those_of_the_cells_that_have_it():
    mdata = simulate_multiome(n_cells=300, missing={"adt": 0.5})
    mdata = mdata[np.random.default_rng(0).permutation(mdata.n_obs)].copy()
    mdata.obs["group"] = np.where(mdata.obsmap["adt"] > 0, "a", None)
    with_proteins = np.flatnonzero(mdata.obsmap["adt"] > 0)
    mdata.obs.iloc[with_proteins[::2], mdata.obs.columns.get_loc("group")] = "b"
    joint = {"rna": "nb", "adt": "nb_mixture", "atac": "bernoulli"}
    JointVI.setup_mudata(mdata, joint)
    model = JointVI(mdata, n_latent=4, n_hidden=32)
    for modality, words in (
        (None, "'rna', 'adt'"),
        ("atac", "no molecule counts"),
        ("adtt", "no modality"),
    ):
        with pytest.raises(ValueError, match=words):
            model.check_false_signals(modality=modality, **QUIET)
    # of cells without the modality no group is needed
    table = model.check_false_signals("group", modality="adt", max_epochs=2, **QUIET)
    assert set(table.index) == {*BASELINES, *ESTIMATES}
    assert table.loc["raw counts", "false_markers"] < 0.2
    with pytest.raises(ValueError, match="`groups` has no value for"):
        model.check_false_signals("group", modality="rna", max_epochs=2, **QUIET)
    # the model of a single modality makes the same baselines of the same counts
    alone = mdata["adt"].copy()
    alone.obs["group"] = mdata.obs.loc[alone.obs_names, "group"]
    BetaVI.setup_anndata(alone)
    single = BetaVI(alone, n_latent=2).check_false_signals("group", max_epochs=1, **QUIET)
    for name in BASELINES:
        assert single.loc[name].equals(table.loc[name])


def test_a_likelihood_of_detection_expects_no_molecules(counts):
    BetaVI.setup_anndata(counts)
    model = BetaVI(counts)
    with pytest.raises(ValueError, match="'bernoulli', which models detection"):
        model.cross_validate_denoising({"gene_likelihood": ["nb", "bernoulli"]}, **QUIET)


@pytest.mark.slow
def test_intervals_of_new_counts_hold_only_with_what_a_cell_says_of_itself(overdispersed):
    """Rates differ within a type: the decoder's mean is too sure, the posterior of a rate is not."""
    BetaVI.setup_anndata(overdispersed)
    model = BetaVI(overdispersed, n_latent=3, gene_likelihood="nb")
    genes = model.cross_validate_denoising(fraction=0.5, n_samples=5, **QUICK).genes
    assert abs(genes["coverage"].mean() - 0.9) < 0.02
    model.train(**QUICK_RUN)
    model.denoise(std_layer_added="std", **QUIET)
    layers = overdispersed.layers["denoised"], overdispersed.layers["std"]
    lower, upper = new_count_interval(*layers)
    assert (lower <= upper).all()
    assert (abs(genes["coverage"] - 0.9) < 4 * genes["coverage_error"] + 0.02).all()
