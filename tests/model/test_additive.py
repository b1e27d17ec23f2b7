"""Models with the additive decoder and with independent dimensions."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import scvi
import torch
from scipy.optimize import linear_sum_assignment

from betavi import BetaVI, EffectVI, JointVI
from betavi.datasets import (
    simulate_counts,
    simulate_multiome,
    simulate_perturbations,
    simulate_programs,
)
from betavi.likelihoods import LIKELIHOODS
from betavi.metrics import disentanglement
from betavi.nn.decoders.additive import SLOPE
from tests.conftest import BRIEF, mostly_slow

pytestmark = pytest.mark.filterwarnings("ignore")
ADDITIVE = {"decoder": "additive", "prior": "independent"}


@pytest.mark.parametrize("likelihood", mostly_slow(LIKELIHOODS, {"zinb", "nb"}))
def test_every_likelihood(likelihood):
    adata = simulate_counts(n_cells=200, n_genes=30)
    BetaVI.setup_anndata(adata, batch_key="batch")
    model = BetaVI(adata, n_latent=3, gene_likelihood=likelihood, **ADDITIVE)
    model.train(**BRIEF)
    assert np.isfinite(model.get_elbo())
    assert np.isfinite(model.get_normalized_expression(n_samples=2).to_numpy()).all()


@pytest.mark.parametrize(
    "options", [{"beta": (0.5, 5.0)}, {"use_observed_lib_size": False}, {"batch_representation": "embedding"}],
    ids=str,
)  # fmt: skip
def test_other_options(options):
    adata = simulate_counts(n_cells=200, n_genes=30)
    BetaVI.setup_anndata(adata, batch_key="batch")
    model = BetaVI(adata, n_latent=3, **ADDITIVE, **options)
    model.train(**BRIEF)
    assert np.isfinite(model.get_elbo())


def joint():
    mdata = simulate_multiome(n_cells=200)
    JointVI.setup_mudata(mdata, likelihoods=dict.fromkeys(mdata.mod, "nb"))
    return JointVI(mdata, n_latent=3, **ADDITIVE)


def effects():
    adata = simulate_perturbations(n_genes=30)
    EffectVI.setup_anndata(adata, perturbation_key="perturbation")
    return EffectVI(adata, n_latent=3, **ADDITIVE)


def single():
    adata = simulate_counts(n_cells=200, n_genes=30)
    BetaVI.setup_anndata(adata)
    return BetaVI(adata, n_latent=3, **ADDITIVE)


@pytest.mark.parametrize("make", [single, joint, effects])
def test_programs_reach_the_output_layers(make):
    module = make().module
    names = list(module.likelihoods)
    n_features = {name: module.likelihood(name).unscaled.bias.numel() for name in names}
    module.start_programs_at({name: torch.ones(3, n) for name, n in n_features.items()})
    for name in names:
        weight = module.likelihood(name).unscaled.weight
        assert (weight[:, :6:2] == 1 / SLOPE).all()
        assert (weight[:, 1:6:2] == 0).all()


@pytest.mark.parametrize("make", [joint, effects])
def test_other_models_are_saved_and_loaded(make, tmp_path):
    model = make()
    model.train(**BRIEF)
    model.save(tmp_path / "model")
    loaded = type(model).load(tmp_path / "model", adata=model.adata)
    np.testing.assert_array_equal(
        loaded.get_latent_representation(), model.get_latent_representation()
    )


def test_a_query_with_a_new_batch_keeps_the_programs():
    adata = simulate_counts(n_cells=300, n_genes=30, n_batches=3)
    is_new = (adata.obs["batch"] == adata.obs["batch"].iloc[0]).to_numpy()
    reference, query = adata[~is_new].copy(), adata[is_new].copy()
    BetaVI.setup_anndata(reference, batch_key="batch")
    model = BetaVI(reference, n_latent=3, **ADDITIVE)
    model.train(**BRIEF)
    mapped = BetaVI.load_query_data(query, model)
    mapped.train(**BRIEF, plan_kwargs={"weight_decay": 0.0})
    old, new = (m.module.likelihood("X").unscaled.weight[:, :6].detach() for m in (model, mapped))
    np.testing.assert_allclose(new, old)
    assert np.isfinite(mapped.get_elbo())


def trained(adata, **options):
    scvi.settings.seed = 0
    BetaVI.setup_anndata(adata)
    model = BetaVI(adata, gene_likelihood="nb", **options)
    # half of the usual epochs, to save time
    model.train(15, train_size=0.9, enable_progress_bar=False)
    return model


@pytest.mark.slow
@pytest.mark.parametrize("scale", ["log", "rate"])
def test_planted_programs_are_recovered(scale):
    adata = simulate_programs(scale=scale)
    weights = trained(adata, n_latent=10, **ADDITIVE).module.likelihood("X").unscaled.weight
    loadings = weights[:, :20].detach().numpy()
    corr = np.corrcoef(loadings.T, adata.varm["programs"].T)[:20, 20:]
    rows, columns = linear_sum_assignment(-corr)
    assert (corr[rows, columns] >= 0.9).sum() >= 8


@pytest.mark.slow
def test_dimensions_of_the_pancreas_stand_for_types(real):
    adata = real("pancreas_3696x2000.h5ad")
    plain, additive = trained(adata), trained(adata, **ADDITIVE)

    def scores(model):
        z, labels = model.get_latent_representation(), adata.obs["clusters"]
        found = disentanglement(z, labels, n_permutations=5, n_bootstrap=2)
        return found.table["value"].loc["latent"]

    gains = scores(additive) - scores(plain)
    assert (gains > np.array([0.15, 0.1, 0.1])).all()
    genes = additive.explain_dimensions(show_progress=False).genes
    markers = ["Gcg", "Ins1", "Sst", "Ghrl", "Spp1", "Neurog3"]
    best = genes[genes["gene"].isin(markers)].sort_values("rank").drop_duplicates("gene")
    assert (best.set_index("gene")["rank"].reindex(markers) <= 10).all()
    assert not best[["dimension", "sign"]].duplicated().any()
    elbo = pd.Series([float(m.get_elbo(indices=m.validation_indices)) for m in (plain, additive)])
    assert elbo[1] > 1.005 * elbo[0]


@pytest.mark.slow
def test_gene_sets_of_planted_programs_lead_a_dimension_each():
    decoupler = pytest.importorskip("decoupler")
    adata = simulate_programs()
    planted = pd.DataFrame(adata.varm["programs"], index=adata.var_names)
    sets = {f"set {name}": planted[name].nlargest(30).index for name in planted}
    rows = [{"source": name, "target": gene} for name, genes in sets.items() for gene in genes]
    model = trained(adata, n_latent=10, **ADDITIVE)
    explained = model.explain_dimensions(n_genes=None, show_progress=False)
    # as in the guide
    changes = explained.fold_changes.loc["X"].T
    changes.index = [f"{dimension}{sign}" for dimension, sign in changes.index]
    scores, _ = decoupler.mt.ulm(data=changes, net=pd.DataFrame(rows))
    best = scores.idxmax(axis=1)[scores.max(axis=1) > 20]
    assert best.nunique() >= 8
