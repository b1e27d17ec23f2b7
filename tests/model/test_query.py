"""Query mapping and minified data."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scvi.data._constants import ADATA_MINIFY_TYPE

from betavi import BetaVI
from tests.conftest import BRIEF


def query_of(counts):
    query = counts[:100].copy()
    query.obs["batch"] = "new"
    return query


@pytest.fixture(params=["one-hot", "embedding"])
def reference(counts, request):
    BetaVI.setup_anndata(counts, batch_key="batch", labels_key="cell_type")
    model = BetaVI(counts, n_latent=4, encode_covariates=True, batch_representation=request.param)
    model.train(**BRIEF)
    return model


def test_mapping_a_query_leaves_the_reference_where_it_was(counts, reference):
    before = reference.get_latent_representation()
    mapped = BetaVI.load_query_data(query_of(counts), reference)
    mapped.train(**BRIEF, plan_kwargs={"weight_decay": 0.0})
    assert mapped.get_latent_representation().shape == (100, 4)
    mapped.module.eval()
    both = counts.copy()
    np.testing.assert_allclose(mapped.get_latent_representation(both), before, rtol=1e-4, atol=1e-5)


def test_only_the_new_batch_learns(counts, reference):
    query = query_of(counts)
    mapped = BetaVI.load_query_data(query, reference, freeze_batchnorm_decoder=True)
    start = {key: value.clone() for key, value in mapped.module.named_parameters()}
    mapped.train(**BRIEF, plan_kwargs={"weight_decay": 0.0})
    moved = {
        key: (value != start[key]).nonzero()
        for key, value in mapped.module.named_parameters()
        if (value != start[key]).any()
    }
    assert moved
    for key, positions in moved.items():
        if "embeddings" in key:
            assert set(positions[:, 0].tolist()) == {2}, key
        elif "encoder" in key or "decoder" in key:
            # three batches, one of them new, are the last columns of a layer
            columns = start[key].shape[1]
            assert (positions[:, 1] >= columns - 3).all(), key
        else:
            pytest.fail(f"{key} was trained")


def test_a_mapped_query_reconstructs_better_than_before(counts, reference):
    query = query_of(counts)
    mapped = BetaVI.load_query_data(query, reference)
    mapped.is_trained_ = True
    torch.manual_seed(0)
    before = mapped.get_elbo()
    mapped.train(max_epochs=30, enable_progress_bar=False, plan_kwargs={"weight_decay": 0.0})
    assert mapped.get_elbo() > before


def test_missing_genes_are_padded_and_sorted(counts, reference, tmp_path):
    reference.save(tmp_path / "model")
    query = query_of(counts)[:, ::-1][:, 5:].copy()
    BetaVI.prepare_query_anndata(query, str(tmp_path / "model"))
    assert (query.var_names == counts.var_names).all()
    mapped = BetaVI.load_query_data(query, str(tmp_path / "model"))
    mapped.train(**BRIEF)
    assert np.isfinite(mapped.get_latent_representation()).all()


@pytest.mark.parametrize("beta", [1.0, (0.1, 10)])
def test_an_unfrozen_query_trains_everything(counts, beta):
    BetaVI.setup_anndata(counts, batch_key="batch")
    reference = BetaVI(counts, beta=beta)
    mapped = BetaVI.load_query_data(query_of(counts), reference, unfrozen=True)
    assert all(parameter.requires_grad for parameter in mapped.module.parameters())


@pytest.mark.parametrize("kind", ADATA_MINIFY_TYPE)
def test_minified_data_answer_as_the_counts_did(counts, model, kind, tmp_path):
    qzm, qzv = model.get_latent_representation(return_dist=True)
    counts.obsm["X_latent_qzm"], counts.obsm["X_latent_qzv"] = qzm, qzv
    torch.manual_seed(0)
    before = model.get_normalized_expression(n_samples=200)
    model.minify_adata(kind)
    np.testing.assert_array_equal(model.get_latent_representation(), qzm)
    torch.manual_seed(0)
    after = model.get_normalized_expression(n_samples=200)
    np.testing.assert_allclose(after, before, rtol=1e-3, atol=1e-6)
    if kind == ADATA_MINIFY_TYPE.LATENT_POSTERIOR:
        with pytest.raises(ValueError, match="does not support minified data"):
            model.get_elbo()
        with pytest.raises(ValueError, match="does not support minified data"):
            model.get_marginal_ll()
    model.save(tmp_path / "model", save_anndata=True)
    loaded = BetaVI.load(tmp_path / "model")
    assert loaded.minified_data_type == kind
    np.testing.assert_array_equal(loaded.get_latent_representation(), qzm)


def test_minifying_needs_an_observed_library(counts):
    BetaVI.setup_anndata(counts)
    model = BetaVI(counts, use_observed_lib_size=False)
    model.train(**BRIEF)
    with pytest.raises(ValueError, match="observed library size"):
        model.minify_adata()
