"""What a user asks, refused with the word that is wrong before anything is computed."""

from __future__ import annotations

import numpy as np
import pytest
import scvi
import torch

from betavi import BetaVI, EffectVI, JointVI
from betavi.datasets import simulate_counts, simulate_multiome, simulate_perturbations
from tests.conftest import BRIEF, getters

QUIET = {"show_progress": False}
ARGUMENTS = {
    "generate": {"n_cells": 2},
    "interpolate": {"start": 0, "end": 1},
    "get_feature_correlation_matrix": {"n_samples": 2},
    "differential_expression": {"groupby": "cell_type"},
    "get_protein_foreground_probability": {"modality": "adt"},
    "translate": {"source": "rna", "target": "adt"},
    "get_aggregated_posterior": {},
    "transfer_labels": {"adata": None, "labels_key": "cell_type", "indices": [0, 1]},
    "predict": {"perturbation": "P0"},
}
OF_EFFECTS = {"predict", "interactions", "dose_response", "state_information"}


@pytest.fixture(scope="module")
def adata():
    return simulate_counts(n_cells=150, n_genes=20, n_batches=2, seed=0)


@pytest.fixture(scope="module")
def trained(adata):
    scvi.settings.seed = 0
    torch.set_num_threads(1)
    BetaVI.setup_anndata(adata, batch_key="batch")
    model = BetaVI(adata, n_latent=3)
    model.train(**BRIEF)
    return model


# SCVI answers them too, and so do we, with a warning
ANSWERED_UNTRAINED = {
    "differential_expression", "get_elbo", "get_feature_correlation_matrix", "get_importance_weights", "get_likelihood_parameters",
    "get_marginal_ll", "get_normalized_accessibility", "get_normalized_expression",
    "get_protein_foreground_probability", "get_reconstruction_error", "posterior_predictive_sample",
}  # fmt: skip
REFUSED = [
    (cls, name)
    for cls in (BetaVI, JointVI, EffectVI)
    for name in {*getters(cls), "rate_distortion", "diagnose", "report", *OF_EFFECTS}
    if name not in ANSWERED_UNTRAINED and hasattr(cls, name)
]


@pytest.mark.parametrize(("cls", "name"), sorted(REFUSED, key=str))
def test_an_untrained_model_answers_nothing(cls, name, adata):
    if cls is BetaVI:
        BetaVI.setup_anndata(adata, batch_key="batch")
        model = BetaVI(adata)
    elif cls is EffectVI:
        screen = simulate_perturbations(60, 20, 2)
        EffectVI.setup_anndata(screen, perturbation_key="perturbation")
        model = EffectVI(screen)
    else:
        mdata = simulate_multiome(n_cells=40)
        JointVI.setup_mudata(mdata, {"rna": "zinb", "adt": "nb_mixture"})
        model = JointVI(mdata)
    with pytest.raises(RuntimeError, match=r"not trained.*model\.train\(\)"):
        getattr(model, name)(**ARGUMENTS.get(name, {}))


@pytest.mark.parametrize(
    "name", ["get_latent_representation", "get_normalized_expression", "get_elbo", "score_counts"]
)
def test_cells_by_name_number_or_mask_are_the_same(trained, name):
    getter, names = getattr(trained, name), trained.adata.obs_names
    mask = np.isin(np.arange(150), [3, 9])
    found = []
    for asked in ([3, 9], names[[3, 9]], mask, names[[3, 9]].tolist()):
        torch.manual_seed(0)
        answer = getter(indices=asked)
        found.append(answer.predicted.zeros if name == "score_counts" else np.asarray(answer))
    for other in found[1:]:
        np.testing.assert_array_equal(found[0], other)


@pytest.mark.parametrize("name", ["get_latent_representation", "support", "rate_distortion"])
def test_cells_that_are_not_there_are_named(trained, name):
    getter = getattr(trained, name)
    with pytest.raises(KeyError, match=r"`indices` has 1 unknown cell name.*'type_0'.*a mask"):
        getter(indices=["cell_3", "type_0"])
    with pytest.raises(IndexError, match="position 150, but there are 150 cells"):
        getter(indices=[0, 150])
    with pytest.raises(ValueError, match="`indices` selects no cell"):
        getter(indices=[])


def test_genes_that_are_not_there_are_named(trained):
    found = trained.get_normalized_expression(gene_list=["gene_4", "gene_2"])
    assert sorted(found) == ["gene_2", "gene_4"]
    with pytest.raises(KeyError, match="no feature 'gene_99'"):
        trained.get_normalized_expression(gene_list=["gene_4", "gene_99"])
    with pytest.raises(TypeError, match="list of names"):
        trained.get_normalized_expression(gene_list="gene_4")


@pytest.mark.parametrize(
    ("asked", "error", "message"),
    [
        ({}, ValueError, "Pass `groupby`, .* or `idx1`"),
        ({"idx2": [1]}, ValueError, "`idx2` was passed without `idx1`"),
        ({"groupby": "celltype"}, KeyError, "Did you mean 'cell_type'"),
        ({"groupby": "cell_type", "group1": "type_9"}, KeyError, "no group 'type_9'"),
        ({"groupby": "cell_type", "group1": ["type_0"], "group2": "x"}, KeyError, "no group 'x'"),
        ({"groupby": "cell_type", "mode": "chance"}, ValueError, "'vanilla', 'change'"),
        ({"groupby": "one"}, ValueError, "only one group, 'same'"),
    ],
)
def test_comparisons_of_nothing_are_refused(trained, asked, error, message):
    trained.adata.obs["one"] = "same"
    before = trained.adata.obs.copy()
    with pytest.raises(error, match=message):
        trained.differential_expression(**asked)
    assert trained.adata.obs.equals(before)


def test_comparisons_find_what_differs(trained):
    by_group = trained.differential_expression(groupby="cell_type", group1="type_0", silent=True)
    is_in = (trained.adata.obs["cell_type"] == "type_0").to_numpy()
    by_cells = trained.differential_expression(idx1=is_in, silent=True)
    assert len(by_group) == len(by_cells) == 20
    assert (
        np.corrcoef(by_group["raw_mean1"], by_cells.loc[by_group.index, "raw_mean1"])[0, 1] > 0.99
    )


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"max_epoch": 1}, "train has no argument 'max_epoch'. Did you mean 'max_epochs'"),
        ({"plan_kwargs": {"learning": 0.1}}, "plan_kwargs has no argument 'learning'"),
    ],
)
def test_words_that_nobody_takes_are_refused_before_training(adata, asked, message):
    BetaVI.setup_anndata(adata)
    model = BetaVI(adata)
    with pytest.raises(TypeError, match=message):
        model.train(**asked)
    assert not model.is_trained
    assert not hasattr(model, "trainer")


def test_words_of_scvi_and_of_lightning_are_known(adata):
    BetaVI.setup_anndata(adata)
    plan = {"lr": 1e-3, "weight_decay": 1e-6, "n_epochs_kl_warmup": 2, "kl_weight": 1.0}
    kwargs = {"early_stopping": True, "gradient_clip_val": 1.0, "datasplitter_kwargs": {}}
    BetaVI(adata).train(plan_kwargs=plan, **kwargs, **BRIEF)


def test_a_batch_of_a_model_without_any_is_refused_with_the_remedy(adata):
    BetaVI.setup_anndata(adata)
    model = BetaVI(adata, n_latent=3)
    model.train(**BRIEF)
    with pytest.raises(ValueError, match=r"no batch 'batch_0'.* without batches.*`batch_key`"):
        model.generate(2, batch="batch_0", **QUIET)


def test_a_query_with_nothing_new_answers_at_once(trained, tmp_path):
    query = simulate_counts(n_cells=30, n_genes=20, n_batches=2, seed=0)
    trained.save(tmp_path / "reference")
    for reference in (trained, str(tmp_path / "reference")):
        mapped = BetaVI.load_query_data(query.copy(), reference)
        expected = trained.get_latent_representation(query.copy())
        np.testing.assert_allclose(mapped.get_latent_representation(), expected, atol=1e-5)
    unfrozen = BetaVI.load_query_data(query.copy(), trained, unfrozen=True)
    untrained = BetaVI.load_query_data(query.copy(), trained.sibling())
    query.obs["batch"] = "new"
    for mapped in (unfrozen, untrained, BetaVI.load_query_data(query, trained)):
        with pytest.raises(RuntimeError, match="learn its new categories"):
            mapped.get_latent_representation()


def test_a_joint_query_with_nothing_new_answers_at_once():
    mdata = simulate_multiome(n_cells=80)
    JointVI.setup_mudata(mdata, {"rna": "zinb", "adt": "nb_mixture"})
    model = JointVI(mdata, n_latent=3)
    model.train(**BRIEF)
    mapped = JointVI.load_query_data(JointVI.prepare_query_mudata(mdata, model), model)
    expected = model.get_latent_representation()
    np.testing.assert_allclose(mapped.get_latent_representation(), expected, atol=1e-5)
    assert mapped.get_latent_representation(indices=mdata.obs_names[:4]).shape == (4, 3)
