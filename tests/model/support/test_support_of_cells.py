"""p-values of cells and positions that a model gives."""

from __future__ import annotations

import re
import warnings

import anndata
import numpy as np
import pytest
import scvi
import torch
from scipy import stats
from sklearn.metrics import roc_auc_score
from torch.distributions import (
    Categorical,
    ExpTransform,
    MixtureSameFamily,
    Normal,
    TransformedDistribution,
)

from betavi import BetaVI, JointVI
from betavi.datasets import simulate_multiome
from betavi.diagnostics import thin
from betavi.likelihoods import LIKELIHOODS
from betavi.model.core.density import ENOUGH_KNOWN, _advice, _fitted
from betavi.model.support.scores import _split
from tests.conftest import BRIEF, mostly_slow

QUIET = {"show_progress": False}


@pytest.mark.parametrize("kept", [1.0, 0.5])
def test_of_possible_cells_one_in_twenty_is_called(trained, kept):
    some = trained.adata[trained.test_indices].copy()
    if kept < 1:
        some.X = thin(some.X, 1 - kept, seed=0).kept
    found = trained.support(some, **QUIET)
    # of 360 cells, judged by 360 others
    assert 0.015 < (found["p_value"] < 0.05).mean() < 0.085
    assert found.index.equals(some.obs_names)


def test_an_unseen_type_is_outlying(trained, whole):
    seen = trained.support(indices=trained.test_indices, **QUIET)
    unseen = trained.support(whole[whole.obs["cell_type"] == "type_3"].copy(), **QUIET)
    truth = np.repeat([0, 1], [len(seen), len(unseen)])
    scores = np.concatenate([seen["outlier_score"], unseen["outlier_score"]])
    assert roc_auc_score(truth, scores) > 0.9
    assert (unseen["p_value"] < 0.05).mean() > 3 * (seen["p_value"] < 0.05).mean()


def test_cells_with_shuffled_genes_are_outlying_at_the_same_total(trained):
    some = trained.adata[trained.test_indices].copy()
    rng = np.random.default_rng(0)
    dense = some.X.toarray()
    some.X = np.array([rng.permutation(row) for row in dense])
    found = trained.support(some, **QUIET)
    assert (found["p_value"] < 0.01).mean() > 0.9


def test_cells_explained_worse_have_higher_outlier_scores(trained):
    found = trained.support(indices=trained.test_indices, **QUIET)
    losses = trained.get_reconstruction_error(indices=trained.test_indices, return_mean=False)[
        "reconstruction_loss"
    ]
    depth = np.log(np.asarray(trained.adata.X[trained.test_indices].sum(axis=1)).ravel())
    slope = np.polyfit(depth, np.asarray(losses), 1)
    reconstruction_excess = np.asarray(losses) - np.polyval(slope, depth)
    outlying = found["outlier_score"].rank().to_numpy()
    assert np.corrcoef(outlying, reconstruction_excess)[0, 1] > 0.15


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


@pytest.mark.parametrize("likelihood", mostly_slow(LIKELIHOODS, {"lognormal", "zinb"}))
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


def test_a_distribution_is_split_into_blocks_of_cells():
    """Also one that is made of others, as a likelihood from outside may be."""
    mean, x = torch.randn(2, 5, 3)
    mixture = Categorical(logits=torch.randn(5, 3, 2))
    parts = Normal(torch.randn(5, 3, 2), torch.ones(2))
    for px in (
        Normal(mean, torch.ones(3)),
        TransformedDistribution(Normal(mean, torch.ones(5, 3)), [ExpTransform()]),
        MixtureSameFamily(mixture, parts),
    ):
        value = x.exp()
        for size in (1, 2, 5):
            blocks = _split(px, 5, size)
            found = [
                part.log_prob(rows) for part, rows in zip(blocks, value.split(size), strict=True)
            ]
            torch.testing.assert_close(torch.cat(found), px.log_prob(value))
            assert blocks[-1].sample((4,)).shape == (4, (5 - 1) % size + 1, 3)


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
    with pytest.raises(ValueError, match=r"either cells .* or positions"):
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
    model.train(**BRIEF | {"train_size": 0.95})
    with pytest.warns(UserWarning, match="Too few cells were held out"):
        model.support(**QUIET)


@pytest.mark.slow
def test_joint_support():
    """Proteins and RNA that belong to other cells are outlying."""
    mdata = simulate_multiome(n_cells=1500, seed=0, missing={"adt": 0.2})
    JointVI.setup_mudata(mdata, {"rna": "zinb", "adt": "nb_mixture", "atac": "bernoulli"})
    model = JointVI(mdata, n_latent=5)
    model.train(30, enable_progress_bar=False, train_size=0.6, validation_size=0.2)
    usual = model.support(indices=model.test_indices, **QUIET)
    assert 0.01 < (usual["p_value"] < 0.05).mean() < 0.1
    outlying = mdata.copy()
    rng = np.random.default_rng(0)
    outlying["rna"].X = np.array([rng.permutation(row) for row in outlying["rna"].X.toarray()])
    found = model.support(outlying, **QUIET)
    assert (found["p_value"] < 0.05).mean() > 0.6
    assert found.index.equals(outlying.obs_names)
    assert model.support(latent=np.zeros(5)).shape == (1, 2)


def test_a_call_that_fails_leaves_another_object_as_it_was(trained, whole):
    other = whole[:50].copy()
    before = other.obs.columns.tolist(), sorted(other.uns)
    with pytest.raises(IndexError, match="indices"):
        trained.support(other, indices=[99], **QUIET)
    with pytest.raises(ValueError, match="`indices` selects no cell"):
        trained.support(other, indices=[], **QUIET)
    assert (other.obs.columns.tolist(), sorted(other.uns)) == before


def test_a_loaded_model_says_the_same(trained, tmp_path):
    trained.save(tmp_path / "model")
    loaded = BetaVI.load(tmp_path / "model", adata=trained.adata)
    z = trained.get_latent_representation()[:20]
    np.testing.assert_allclose(loaded.support(latent=z), trained.support(latent=z), rtol=1e-3)


@pytest.mark.slow
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


@pytest.mark.slow
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
    usual, outlying = (
        (model.support(cells, **QUIET)["p_value"] < 0.05).mean() for cells in (some, mixed)
    )
    assert 0.01 < usual < 0.09
    assert outlying > 3 * usual


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
        pytest.warns(UserWarning, match=f"nearest calibrated depth.*: {deep!r}"),
        pytest.warns(UserWarning, match=f"no counts, and therefore no p-value .*: {empty!r}"),
    ):
        found = trained.support(some, **QUIET)
    judged = ["reconstruction_excess", "outlier_score", "p_value"]
    assert found.loc[empty, judged].isna().all()
    others = found.index.drop([deep, empty])
    np.testing.assert_allclose(found.loc[others, judged], usual.loc[others, judged], rtol=1e-3)


@pytest.mark.parametrize(
    ("n_cells", "advice"),
    [(778, r"train\(train_size=0.87\)"), (150, "this object has only 150 cells")],
)
def test_the_advice_to_hold_cells_out_can_be_followed(n_cells, advice):
    assert re.search(advice, _advice(n_cells))
    assert n_cells == 150 or (1 - 0.87) * n_cells >= ENOUGH_KNOWN


def test_a_bar_changes_nothing(trained):
    one, two = (trained.support(indices=[3, 1], show_progress=shown) for shown in (False, True))
    assert one.equals(two)
    densities = [_fitted(trained, trained.adata, shown) for shown in (False, True)]
    np.testing.assert_array_equal(densities[0].means, densities[1].means)
