"""Real counts: what simulated ones would not show."""

from __future__ import annotations

import anndata
import numpy as np
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


def test_overdispersed_likelihoods_explain_two_conditions_better_than_poisson(real):
    adata = real("kang_muscat.h5ad")
    elbos = {
        name: held_out_elbo(BetaVI, adata, "group_id", gene_likelihood=name)
        for name in ("zinb", "nb", "poisson")
    }
    assert min(elbos["zinb"], elbos["nb"]) > elbos["poisson"]


def test_a_short_run_explains_held_out_cells_better_than_scvi(real):
    adata = real("kang_muscat.h5ad")
    ours, theirs = (
        held_out_elbo(cls, adata.copy(), "group_id") for cls in (BetaVI, scvi.model.SCVI)
    )
    assert ours > theirs


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
    latents = []
    for given in (adata, anndata.read_h5ad(tmp_path / "x.h5ad", backed="r")):
        scvi.settings.seed = 0
        BetaVI.setup_anndata(given)
        model = BetaVI(given)
        model.train(**SHORT | {"max_epochs": 2})
        latents.append(model.get_latent_representation())
    np.testing.assert_array_equal(*latents)
    assert np.isfinite(latents[0]).all()


def test_denoised_counts_foretell_molecules_that_were_held_out(real):
    """Each molecule is given to one of two halves; the mean loss of a Poisson rate is judged."""
    adata = real("kang_stim_ctrl_2000.h5ad")[::5].copy()
    rng = np.random.default_rng(0)
    counts = adata.X.toarray().astype(int)
    seen = rng.binomial(counts, 0.5)
    held_out = counts - seen
    genes = seen.sum(axis=0) > 20
    adata = adata[:, genes].copy()
    adata.X, held_out = seen[:, genes].astype(np.float32), held_out[:, genes]
    BetaVI.setup_anndata(adata)
    model = BetaVI(adata, gene_likelihood="nb")
    model.train(**SHORT | {"max_epochs": 40}, plan_kwargs={"one_cycle": 1e-2})
    for estimate in ("posterior", "mean"):
        model.denoise(layer_added=estimate, estimate=estimate, show_progress=False)
    depth = seen[:, genes].sum(axis=1, keepdims=True)
    profile = seen[:, genes].sum(axis=0) / depth.sum()
    rates = {"posterior": adata.layers["posterior"], "mean": adata.layers["mean"]}
    rates["null"] = depth * profile
    loss = {k: (rate - held_out * np.log(rate + 1e-9)).mean() for k, rate in rates.items()}
    assert loss["posterior"] < loss["mean"] < loss["null"]
