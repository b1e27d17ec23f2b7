"""What is decoded and kept in memory for expression values."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from betavi import BetaVI
from betavi.datasets import simulate_counts
from betavi.module import MultimodalVAE

N_CELLS, N_GENES, N_SAMPLES = 500, 300, 50
FEW = ["gene_5", "gene_299", "gene_17"]


@pytest.fixture(scope="module")
def model():
    adata = simulate_counts(n_cells=N_CELLS, n_genes=N_GENES, n_batches=2, seed=0)
    adata.obs["size"] = 1.0
    BetaVI.setup_anndata(adata, batch_key="batch")
    model = BetaVI(adata, n_latent=3, n_hidden=16)
    model.is_trained_ = True
    return model


@pytest.fixture
def joined(monkeypatch):
    """Return the sizes of all arrays and tensors that minibatches are joined into."""
    sizes = []

    def recording(join, size):
        def joining(*args, **kwargs):
            found = join(*args, **kwargs)
            sizes.append(size(found))
            return found

        return joining

    for name in ("concatenate", "stack", "vstack"):
        monkeypatch.setattr(np, name, recording(getattr(np, name), np.size))
    monkeypatch.setattr(torch, "cat", recording(torch.cat, torch.numel))
    return sizes


def test_draws_are_averaged_before_cells_are_joined(model, joined):
    found = model.get_normalized_expression(n_samples=N_SAMPLES, return_numpy=True)
    assert found.shape == (N_CELLS, N_GENES)
    assert N_CELLS * N_GENES in joined
    assert max(joined) < 2 * N_CELLS * N_GENES


def test_draws_that_are_wanted_are_joined(model, joined):
    found = model.get_normalized_expression(n_samples=3, return_mean=False)
    assert found.shape == (3, N_CELLS, N_GENES)
    assert max(joined) == found.size


@pytest.mark.parametrize("option", [{}, {"library_size": "latent"}, {"n_samples": 2}], ids=str)
def test_genes_that_are_not_wanted_are_not_in_the_decoded_distribution(model, monkeypatch, option):
    widths, decode = [], MultimodalVAE.decode

    def recording(*args, **kwargs):
        px = decode(*args, **kwargs)
        widths.extend((px.mean.shape[-1], px.scale.shape[-1], px.zi_logits.shape[-1]))
        return px

    torch.manual_seed(0)
    whole = model.get_normalized_expression(**option)
    monkeypatch.setattr(MultimodalVAE, "decode", recording)
    torch.manual_seed(0)
    few = model.get_normalized_expression(gene_list=FEW, **option)
    assert set(widths) == {len(FEW)}
    assert few.columns.tolist() == FEW
    np.testing.assert_allclose(few, whole[FEW], rtol=1e-5)


def test_only_wanted_genes_are_decoded_where_scales_do_not_share_a_total(monkeypatch):
    """A softmax needs all genes; with size factors no output has more than the wanted ones."""
    adata = simulate_counts(n_cells=100, n_genes=N_GENES, seed=0)
    adata.obs["size"] = 1.0
    BetaVI.setup_anndata(adata, size_factor_key="size")
    model = BetaVI(adata, n_latent=3, n_hidden=16)
    model.is_trained_ = True
    wide = []
    for part in model.module.likelihood("X").modules():
        part.register_forward_hook(
            lambda _part, _args, out: wide.append(
                torch.is_tensor(out) and out.shape[-1] == N_GENES and out.ndim > 1
            )
        )
    torch.manual_seed(0)
    few = model.get_normalized_expression(gene_list=FEW)
    assert wide
    assert not any(wide)
    torch.manual_seed(0)
    np.testing.assert_allclose(few, model.get_normalized_expression()[FEW], rtol=1e-5)
    assert any(wide)
