"""Explanations of latent dimensions: genes, nats, labels and covariates."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import scvi
import torch
from torch import nn

from betavi import BetaVI, EffectVI, JointVI
from betavi.data import read_lazy
from betavi.datasets import simulate_counts, simulate_multiome, simulate_perturbations
from betavi.likelihoods import LIKELIHOODS
from betavi.model.dimensions.effects import Steps, effects_of_steps
from betavi.nn import LATENTS, PRIORS
from tests.conftest import BRIEF, mostly_slow

QUIET = {"show_progress": False}


def shuffled(adata, seed=0):
    """Return counts in which every gene is shuffled over the cells on its own."""
    rng, counts = np.random.default_rng(seed), adata.X.toarray()
    adata = adata.copy()
    adata.X = np.column_stack([rng.permutation(gene) for gene in counts.T])
    return adata


@pytest.fixture(scope="module")
def types():
    """Cells of two types, and a model whose dimensions are used."""
    scvi.settings.seed = 0
    torch.set_num_threads(1)
    cells = {"n_types": 2, "rare_share": 0.4, "spread_within_type": 0.2}
    adata = simulate_counts(n_cells=1500, n_genes=100, seed=1, **cells)
    BetaVI.setup_anndata(adata, batch_key="batch")
    model = BetaVI(adata, n_latent=4)
    model.train(30, train_size=0.8, enable_progress_bar=False)
    return model


@pytest.fixture(scope="module")
def explained(types):
    return types.explain_dimensions(labels_key="cell_type", **QUIET)


class Linear(nn.Module):
    """A decoder that passes z on."""

    def forward(self, h, *codes):
        return h


def test_a_linear_decoder_is_explained_by_its_weights(counts):
    BetaVI.setup_anndata(counts)
    model = BetaVI(counts, n_latent=3, n_hidden=3, gene_likelihood="poisson")
    model.train(**BRIEF)
    weights = np.random.default_rng(0).normal(size=(3, 40)).astype(np.float32)
    model.module.decoders["X"] = Linear()
    layer = model.module.likelihood("X").unscaled
    with torch.no_grad():
        shape = layer.weight.shape
        layer.weight.copy_(torch.as_tensor(weights.T if shape == (40, 3) else weights))
    model.module.eval()
    steps = Steps([1], np.full(3, 0.25), {"-": np.full(3, -0.5), "+": np.full(3, 1.25)})
    cells = np.arange(100)
    found = effects_of_steps(model, counts, cells, steps, ["X"], False)
    z = model.get_latent_representation(indices=cells)
    bias = layer.bias.detach().numpy()

    def log2_share(value):
        z[:, 1] = value
        rates = np.exp((z @ weights + bias).astype(np.float64))
        return np.log2(rates / rates.sum(axis=1, keepdims=True))

    for sign, end in (("-", -0.5), ("+", 1.25)):
        part = found[(1, sign, "X")]
        expected = log2_share(end) - log2_share(0.25)
        np.testing.assert_allclose(part.log2_fold_change, expected.mean(axis=0), atol=1e-4)
        # by hand: the step times the weight, but for the shift that all genes share
        by_hand = (end - 0.25) * weights[1] / np.log(2)
        difference = part.log2_fold_change - by_hand
        np.testing.assert_allclose(difference, difference[0], atol=1e-4)
        np.testing.assert_allclose(part.sd_between_cells, 0, atol=1e-3)


def test_the_dimension_of_the_cell_types_explains_most(explained):
    table = explained.dimensions
    assert explained.is_held_out
    assert explained.n_cells == 300
    assert table["label_information"].idxmax() == table["distortion_increase"].idxmax()
    best = table.loc[table["distortion_increase"].idxmax()]
    assert best["status"] == "used"
    assert best["label_information"] > 0.5
    assert best["distortion_increase"] > 10 * best["distortion_increase_error"]
    np.testing.assert_allclose(table["rate_share"].sum(), 1)
    assert (table["low"] < table["median"]).all()
    assert (table["median"] < table["high"]).all()
    assert table["explained_by_batch"].between(0, 0.2).all()


def test_genes_belong_to_used_dimensions_and_rise(explained):
    genes, table = explained.genes, explained.dimensions
    used = table.index[table["status"] == "used"]
    assert set(genes["dimension"]) == set(used)
    assert (genes.groupby(["dimension", "sign"]).size() <= 20).all()
    assert (genes["log2_count_change"] > 0).all()
    assert genes.groupby(["dimension", "sign"])["rank"].max().max() == 20
    assert (genes["standard_error"] < genes["log2_fold_change"].abs().max() / 5).all()
    wide = explained.fold_changes
    row = genes.iloc[0]
    value = wide.loc[("X", row["gene"]), (row["dimension"], row["sign"])]
    assert value == row["log2_fold_change"]


def test_listed_genes_differ_between_the_cells_at_both_ends(types, explained):
    """The fold changes agree with the counts of cells far apart on the dimension of the types."""
    k = explained.dimensions["distortion_increase"].idxmax()
    every = types.explain_dimensions(n_genes=None, **QUIET).genes
    own = every[every["dimension"] == k].pivot_table(
        index="gene", columns="sign", values="log2_fold_change"
    )
    change = (own["+"] - own["-"]).loc[types.adata.var_names]
    z = types.get_latent_representation()[:, k]
    shares = types.adata.X.toarray() / types.adata.X.sum(axis=1).reshape(-1, 1)
    high, low = (
        shares[mask].mean(axis=0) + 1e-4
        for mask in (z > np.quantile(z, 0.8), z < np.quantile(z, 0.2))
    )
    assert np.corrcoef(change, np.log2(np.ravel(high / low)))[0, 1] > 0.7


@pytest.mark.parametrize("seed", mostly_slow([0, 1, 2], [0]))
def test_shuffled_genes_have_no_program(seed):
    adata = shuffled(simulate_counts(n_cells=1000, n_genes=100, seed=seed), seed)
    BetaVI.setup_anndata(adata)
    model = BetaVI(adata, n_latent=5)
    model.train(20, train_size=0.8, enable_progress_bar=False, collapse_guard=False)
    found = model.explain_dimensions(labels_key="cell_type", **QUIET)
    assert not (found.dimensions["status"] == "used").any()
    assert found.genes.empty
    assert found.fold_changes.empty
    assert found.dimensions["label_information"].max() < 0.1


def check(found, n_latent, modalities=("X",)):
    """The tables are complete and finite, whatever the model."""
    table, genes, changes = found.dimensions, found.genes, found.fold_changes
    assert table.index.tolist() == list(range(n_latent))
    assert np.isfinite(table[["distortion_increase", "distortion_increase_error"]]).all(axis=None)
    assert set(genes["modality"]) <= set(modalities)
    numbers = genes.select_dtypes("number").astype(float)
    assert np.isfinite(numbers).all(axis=None)
    assert (genes[["sd_between_cells", "standard_error"]] >= 0).all(axis=None)
    assert np.isfinite(changes.to_numpy(dtype=float)).all()


OPTIONS = [
    *({"gene_likelihood": name} for name in LIKELIHOODS if name != "nb_mixture"),
    *({"latent_distribution": name} for name in LATENTS),
    *({"prior": name} for name in PRIORS if name != "standard_normal"),
    {"use_observed_lib_size": False},
]


@pytest.fixture(scope="module")
def many():
    return simulate_counts(n_cells=600, n_genes=60, n_types=2, n_batches=2, seed=1)


@pytest.mark.parametrize(
    "options",
    [
        *({"gene_likelihood": name} for name in LIKELIHOODS if name != "nb_mixture"),
        {"latent_distribution": "deterministic", "gene_likelihood": "nb"},
    ],
    ids=str,
)
def test_steps_of_an_additive_decoder_are_the_same_in_all_cells(many, options):
    """Unless the expectation is not the exponential of a sum."""
    BetaVI.setup_anndata(many, batch_key="batch")
    model = BetaVI(many, n_latent=3, decoder="additive", **options)
    model.train(40, train_size=0.7, enable_progress_bar=False, collapse_guard=False)
    genes = model.explain_dimensions(n_cells=100, **QUIET).genes
    assert not genes.empty
    is_sum = options["gene_likelihood"] != "lognormal"
    assert (genes["sd_between_cells"].max() < 0.01) == is_sum


def test_a_label_with_few_cells_is_not_the_best(types):
    labels = types.adata.obs["cell_type"].astype(str)
    labels.iloc[:5] = "few"
    types.adata.obs["mine"] = labels
    found = types.explain_dimensions(labels_key="mine", **QUIET).dimensions
    assert "few" not in found["label"].tolist()
    types.adata.obs["mine"] = [f"{number // 10}" for number in range(types.adata.n_obs)]
    found = types.explain_dimensions(labels_key="mine", **QUIET).dimensions
    assert found[["label", "label_information"]].isna().all(axis=None)
    del types.adata.obs["mine"]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_every_kind_of_model_is_explained(many, options):
    BetaVI.setup_anndata(many, batch_key="batch")
    model = BetaVI(many, n_latent=3, **options)
    model.train(12, train_size=0.7, enable_progress_bar=False, collapse_guard=False)
    found = model.explain_dimensions(n_cells=100, **QUIET)
    check(found, 3)
    # two types are a signal that any likelihood sees
    assert not found.genes.empty
    is_sum = options.get("prior", "standard_normal") in ("standard_normal", "independent")
    has_rate = options.get("latent_distribution") != "deterministic" and is_sum
    assert found.dimensions["rate"].notna().all() == has_rate


def test_shuffled_genes_of_an_autoencoder_have_no_program():
    adata = shuffled(simulate_counts(n_cells=800, n_genes=60, seed=0))
    BetaVI.setup_anndata(adata)
    model = BetaVI(adata, n_latent=3, latent_distribution="deterministic")
    model.train(15, train_size=0.7, enable_progress_bar=False, collapse_guard=False)
    assert model.explain_dimensions(**QUIET).genes.empty


@pytest.mark.parametrize("fusion", ["poe", "moe"])
def test_cells_may_lack_modalities(fusion):
    mdata = simulate_multiome(n_cells=500, n_peaks=50, missing={"adt": 0.3}, n_batches=2)
    likelihoods = {"rna": "zinb", "adt": "nb_mixture", "atac": "bernoulli"}
    JointVI.setup_mudata(mdata, likelihoods, batch_key="batch")
    model = JointVI(mdata, n_latent=3, fusion=fusion)
    model.train(15, train_size=0.7, enable_progress_bar=False, collapse_guard=False)
    found = model.explain_dimensions(n_cells=100, **QUIET)
    check(found, 3, likelihoods)
    assert set(found.genes["modality"]) == set(likelihoods)
    parts = [f"distortion_increase_{name}" for name in likelihoods]
    total = found.dimensions[parts].sum(axis=1)
    np.testing.assert_allclose(total, found.dimensions["distortion_increase"])
    one = model.explain_dimensions(modalities="adt", n_cells=100, **QUIET)
    assert set(one.genes["modality"]) == {"adt"}
    assert one.dimensions.equals(found.dimensions)


def test_a_screen_is_explained():
    adata = simulate_perturbations(n_cells=600, n_genes=60, n_perturbations=3)
    EffectVI.setup_anndata(adata, perturbation_key="perturbation")
    model = EffectVI(adata, n_latent=3)
    model.train(12, train_size=0.7, enable_progress_bar=False)
    found = model.explain_dimensions(labels_key="perturbation", n_cells=100, **QUIET)
    check(found, 3)
    assert found.dimensions["label_information"].max() < 0.5


def test_a_query_object_and_some_cells_are_explained(types, tmp_path):
    other = simulate_counts(n_cells=200, n_genes=100, n_types=2, n_batches=2, seed=1)
    found = types.explain_dimensions(other, **QUIET)
    assert (found.n_cells, found.is_held_out) == (200, True)
    some = types.explain_dimensions(indices=types.adata.obs_names[:100], **QUIET)
    assert (some.n_cells, some.is_held_out) == (100, False)
    other.write_h5ad(tmp_path / "cells.h5ad")
    lazy = types.explain_dimensions(read_lazy(tmp_path / "cells.h5ad"), **QUIET)
    pd.testing.assert_frame_equal(lazy.dimensions, found.dimensions)
    pd.testing.assert_frame_equal(lazy.genes, found.genes)


def test_explanations_repeat_change_nothing_and_survive_saving(types, explained, tmp_path):
    state, before = torch.get_rng_state(), types.adata.copy()
    again = types.explain_dimensions(labels_key="cell_type", **QUIET)
    assert torch.equal(torch.get_rng_state(), state)
    assert before.obs.equals(types.adata.obs)
    types.save(tmp_path / "model")
    loaded = BetaVI.load(tmp_path / "model", types.adata)
    for other in (again, loaded.explain_dimensions(labels_key="cell_type", **QUIET)):
        pd.testing.assert_frame_equal(other.dimensions, explained.dimensions)
        pd.testing.assert_frame_equal(other.genes, explained.genes)
        pd.testing.assert_frame_equal(other.fold_changes, explained.fold_changes)


def test_every_beta_has_its_explanation(many):
    BetaVI.setup_anndata(many)
    model = BetaVI(many, n_latent=2, beta=(0.1, 100))
    model.train(10, enable_progress_bar=False, collapse_guard=False)
    weak, strong = (model.explain_dimensions(beta=beta, **QUIET).dimensions for beta in (0.1, 100))
    assert weak["rate"].sum() > strong["rate"].sum()


def test_continuous_covariates_and_missing_labels_are_read(counts):
    BetaVI.setup_anndata(counts, batch_key="batch", continuous_covariate_keys=["age"],
                         categorical_covariate_keys=["donor"])  # fmt: skip
    model = BetaVI(counts, n_latent=2)
    model.train(**BRIEF)
    counts.obs["rough"] = counts.obs["cell_type"].astype(object).where(counts.obs["age"] > 0)
    table = model.explain_dimensions(labels_key="rough", **QUIET).dimensions
    shares = table[["explained_by_batch", "explained_by_donor", "explained_by_age"]]
    assert ((shares >= 0) & (shares <= 1)).all(axis=None)
    assert set(table["label"]) <= set(counts.obs["cell_type"])


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"labels_key": "celltype"}, KeyError, "obs.'celltype'., given as `labels_key`.*'cell_type'"),
        ({"labels_key": "one"}, ValueError, "obs.'one'., given as `labels_key`, has 1 label"),
        ({"labels_key": "share"}, TypeError, "fractions, not labels"),
        ({"n_genes": 0}, ValueError, "`n_genes` must be a whole number of at least 1"),
        ({"n_cells": 0}, ValueError, "`n_cells` must be a whole number of at least 1"),
        ({"modalities": "rna"}, ValueError, "no modality 'rna'"),
        ({"indices": [0, 1]}, ValueError, "Only 2 different cells.*at least 20.*`indices`"),
        ({"indices": ["nobody"]}, KeyError, "unknown cell name"),
        ({"seed": -1}, ValueError, "`seed`"),
    ],
)  # fmt: skip
def test_wrong_arguments_are_named(model, arguments, error, message):
    model.adata.obs["one"], model.adata.obs["share"] = "same", np.linspace(0, 1, model.adata.n_obs)
    with pytest.raises(error, match=message):
        model.explain_dimensions(**arguments, **QUIET)


def test_labels_that_selected_cells_do_not_have_are_named(model):
    only = np.flatnonzero(model.adata.obs["cell_type"] == "type_0")
    with pytest.raises(ValueError, match=r"obs.'cell_type'., given as `labels_key`, has 1 label"):
        model.explain_dimensions(labels_key="cell_type", indices=only, **QUIET)


def test_a_minified_object_is_refused(model):
    for key, values in zip("mv", model.get_latent_representation(return_dist=True), strict=True):
        model.adata.obsm[f"X_latent_qz{key}"] = values
    model.minify_adata()
    with pytest.raises(ValueError, match="`explain_dimensions` needs counts"):
        model.explain_dimensions(**QUIET)


@pytest.mark.slow
def test_markers_of_the_pancreas_come_first(real):
    adata = real("pancreas_3696x2000.h5ad")
    BetaVI.setup_anndata(adata)
    model = BetaVI(adata)
    model.train(enable_progress_bar=False)
    found = model.explain_dimensions(labels_key="clusters", **QUIET)
    best = found.genes.groupby("gene")["rank"].min()
    # alpha, beta, delta and epsilon cells, and their precursors
    assert (best[["Gcg", "Ins2", "Sst", "Ghrl", "Neurog3"]] <= 10).all()
    assert found.dimensions["label_information"].max() > 0.5
