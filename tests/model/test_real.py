"""Real counts: what simulated ones would not show."""

from __future__ import annotations

import anndata
import numpy as np
import pytest
import scanpy as sc
import scvi
from sklearn.model_selection import cross_val_score
from sklearn.neighbors import KNeighborsClassifier

from betavi import BetaVI

SHORT = {"max_epochs": 15, "enable_progress_bar": False, "accelerator": "cpu"}
WARMUP = {"plan_kwargs": {"n_epochs_kl_warmup": 5}}


def held_out_elbo(cls, adata, batch_key=None, **kwargs):
    scvi.settings.seed = 0
    cls.setup_anndata(adata, batch_key=batch_key)
    model = cls(adata, **kwargs)
    model.train(**SHORT, **WARMUP)
    return float(model.get_elbo(indices=model.validation_indices))


@pytest.mark.slow
def test_overdispersed_likelihoods_explain_two_conditions_better_than_poisson(real):
    adata = real("kang_muscat.h5ad")
    elbos = {
        name: held_out_elbo(BetaVI, adata, "group_id", gene_likelihood=name)
        for name in ("zinb", "nb", "poisson")
    }
    assert min(elbos["zinb"], elbos["nb"]) > elbos["poisson"]


@pytest.mark.slow
def test_a_short_run_explains_held_out_cells_better_than_scvi(real):
    adata = real("kang_muscat.h5ad")
    ours, theirs = (
        held_out_elbo(cls, adata.copy(), "group_id") for cls in (BetaVI, scvi.model.SCVI)
    )
    assert ours > theirs


@pytest.mark.slow
def test_cell_types_are_neighbours_in_the_latent_space(real):
    adata = real("kang_muscat.h5ad")
    BetaVI.setup_anndata(adata, batch_key="group_id")
    model = BetaVI(adata)
    model.train(**SHORT, **WARMUP)
    knn = KNeighborsClassifier(15)
    found = cross_val_score(knn, model.get_latent_representation(), adata.obs["cluster_id"]).mean()
    shuffled = adata.obs["cluster_id"].sample(frac=1, random_state=0).to_numpy()
    chance = cross_val_score(knn, model.get_latent_representation(), shuffled).mean()
    assert found > 0.9
    assert found > chance + 0.3


def test_all_genes_of_a_sparse_matrix_from_a_file(real, tmp_path):
    """13,939 genes, 5 % nonzero, as they come."""
    adata = real("pbmc_frozen_donorA.h5ad")[:400].copy()
    sc.pp.filter_genes(adata, min_counts=1)
    adata.write_h5ad(tmp_path / "x.h5ad")
    backed = anndata.read_h5ad(tmp_path / "x.h5ad", backed="r")
    BetaVI.setup_anndata(backed)
    model = BetaVI(backed)
    model.train(**SHORT | {"max_epochs": 2})
    latents = model.get_latent_representation(), model.get_latent_representation(adata)
    np.testing.assert_array_equal(*latents)
    assert np.isfinite(latents[0]).all()


@pytest.mark.slow
def test_denoised_counts_foretell_molecules_better_than_any_baseline(real):
    adata = real("kang_stim_ctrl_2000.h5ad")[::2].copy()
    sc.pp.highly_variable_genes(adata, n_top_genes=1000, flavor="seurat_v3", subset=True)
    scvi.settings.seed = 0
    BetaVI.setup_anndata(adata, batch_key="stim")
    model = BetaVI(adata)
    report = model.cross_validate_denoising(
        max_epochs=40, accelerator="cpu", show_progress=False, plan_kwargs={"one_cycle": 1e-2}
    )
    losses = report.methods["poisson_loss"]
    assert list(losses.index[:2]) == ["posterior", "mean"]
    assert losses["kNN smoothing"] < losses["gene mean x depth"]
    assert report.methods["behind"].iloc[2] > 2 * report.methods["behind_se"].iloc[2]
    # interferon answers to stimulation, whatever else is noise
    assert report.genes.loc["ISG15", "trusted"]
    assert 0.1 < report.trusted_share < 0.9


@pytest.mark.slow
def test_shuffled_genes_of_real_counts_have_no_relations_until_they_are_smoothed(real):
    adata = real("kang_muscat.h5ad")
    BetaVI.setup_anndata(adata, batch_key="group_id", labels_key="cluster_id")
    model = BetaVI(adata)
    table = model.check_false_signals(
        max_epochs=20, accelerator="cpu", show_progress=False, plan_kwargs={"one_cycle": 1e-2}
    )
    false = table["false_correlations"]
    assert false["raw counts"] < 0.02
    assert table.loc["raw counts", "false_markers"] < 0.1
    assert false["raw counts"] < false["posterior"] < false["mean"]
