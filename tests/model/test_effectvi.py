"""EffectVI as a model: setup, training, files, queries, and the abilities that it shares."""

from __future__ import annotations

import copy
import pickle

import anndata
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from scipy import sparse

from betavi import EffectVI
from betavi.data import StoreDataModule, read_lazy
from betavi.data.conditions import CONDITION_FIELDS
from tests.conftest import BRIEF
from tests.model.effects.screens import fitted, registered, screen

KEYS = {
    "dose_key": "dose", "context_key": "context", "replicate_key": "replicate", "batch_key": "batch",
}  # fmt: skip
QUIET = {"show_progress": False}


def full_screen(n_cells=500):
    """Return a screen with doses, contexts, replicates and batches."""
    sizes = {"n_genes": 40, "n_perturbations": 3, "n_combinations": 2}
    adata = screen(n_cells, doses=(0.1, 1, 10), n_contexts=2, n_replicates=2, **sizes)
    adata.obs["batch"] = np.random.default_rng(0).choice(["a", "b"], n_cells)
    return adata


@pytest.fixture(scope="module")
def adata():
    return full_screen()


@pytest.fixture(scope="module")
def model(adata):
    return fitted(adata.copy(), keys=KEYS)


@pytest.fixture
def plain():
    """Return a small screen with batches, and nothing else."""
    adata = screen(400, n_genes=30)
    adata.obs["batch"] = np.random.default_rng(0).choice(["a", "b"], adata.n_obs)
    return adata


def query_of(adata, n_cells=80, **changes):
    """Return cells that no model knows, with other values in the first cell."""
    query = adata[:n_cells].copy()
    for column, value in changes.items():
        query.obs[column] = query.obs[column].astype(str)
        query.obs.iloc[0, query.obs.columns.get_loc(column)] = value
    return query


def predictions(model):
    return model.predict(["control", "P0", "P0+P1"], dose=1.0)


def check_same(one, two):
    np.testing.assert_array_equal(one.X, two.X)
    shared = set(one.layers) & set(two.layers)
    assert {"lower", "upper", "lfc", "lfc_lower", "lfc_upper"} <= shared
    for layer in shared:
        np.testing.assert_array_equal(one.layers[layer], two.layers[layer])


def effects(model):
    return model.module.head.effects.clone()


# -- input ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "convert",
    [sparse.csc_matrix, sparse.csr_array, lambda x: x.toarray(), lambda x: x.astype(np.float32)],
    ids=["csc", "csr_array", "dense", "float"],
)
def test_the_format_of_the_counts_does_not_matter(plain, convert):
    expected = effects(fitted(plain.copy()))
    plain.X = convert(plain.X)
    assert torch.equal(effects(fitted(plain)), expected)


def test_counts_in_a_layer(plain):
    expected = effects(fitted(plain.copy()))
    plain.layers["counts"] = plain.X.copy()
    plain.X = np.log1p(plain.X.toarray())
    assert torch.equal(effects(fitted(plain, keys={"layer": "counts"})), expected)


def test_cells_in_files_give_the_same_effects(plain, tmp_path):
    path = tmp_path / "cells.h5ad"
    plain.uns.clear()
    plain.write_h5ad(path)
    training = {"datasplitter_kwargs": {"external_indexing": [np.arange(plain.n_obs)]}}
    expected = fitted(plain, training=training)
    for other in (anndata.read_h5ad(path, backed="r"), read_lazy(path)):
        model = fitted(other, training=training)
        np.testing.assert_allclose(effects(model), effects(expected), atol=1e-6)
        np.testing.assert_allclose(
            model.predict("P0").layers["lower"], expected.predict("P0").layers["lower"], rtol=1e-5
        )
        assert model.predict("P0", cells=[0, 3]).shape == (2, plain.n_vars)
        assert len(model.state_information()) == 1


def test_a_datamodule_gives_the_same_effects(plain, tmp_path):
    path, other = tmp_path / "cells.h5ad", tmp_path / "other.h5ad"
    plain.uns.clear()
    plain.write_h5ad(path)
    setup = {"perturbation_key": "perturbation", "batch_key": "batch"}
    cells = StoreDataModule(EffectVI, path, train_size=1.0, **setup)
    model = EffectVI(registry=cells.registry, n_latent=4, n_hidden=32)
    model.train(**BRIEF, datamodule=cells)
    training = {"datasplitter_kwargs": {"external_indexing": [np.arange(plain.n_obs)]}}
    expected = fitted(plain.copy(), keys={"batch_key": "batch"}, training=training)
    np.testing.assert_allclose(effects(model), effects(expected), atol=1e-6)
    assert "cell_lower" not in model.predict("P0").layers
    model.save(tmp_path / "model")
    loaded = EffectVI.load(tmp_path / "model", adata=plain.copy())
    check_same(loaded.predict("P0"), model.predict("P0"))
    # other conditions would be read as these
    plain.obs["perturbation"] = plain.obs["perturbation"].astype(str).replace({"P0": "Q0"})
    plain.write_h5ad(other)
    with pytest.raises(ValueError, match="differ in 'categorical_mapping' of 'perturbation'"):
        model.train(**BRIEF, datamodule=StoreDataModule(EffectVI, other, **setup))


def test_a_view_is_copied(plain):
    view = plain[:300]
    model = fitted(view)
    assert not view.is_view
    assert torch.equal(effects(model), effects(fitted(plain[:300].copy())))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"gene_likelihood": "normal"}, "gene_likelihood must be one of"),
        ({"gene_likelihood": "bernoulli"}, "gene_likelihood must be one of"),
        ({"dispersion": "gene-cell"}, "'gene-cell' is not available with effects"),
        ({"use_observed_lib_size": False}, "total count of each cell as its library size"),
    ],
)
def test_options_without_effects_are_named(plain, arguments, message):
    registered(plain)
    with pytest.raises(ValueError, match=message):
        EffectVI(plain, **arguments)


@pytest.mark.parametrize(
    "arguments",
    [
        {"gene_likelihood": "zinb"}, {"gene_likelihood": "poisson"}, {"dispersion": "gene-batch"},
        {"prior": "vamp"}, {"n_layers": 2}, {"beta": (0.5, 2.0)},
    ],
    ids=str,
)  # fmt: skip
def test_options_of_the_networks_do_not_change_effects(plain, arguments):
    keys = {"batch_key": "batch"}
    expected = fitted(plain.copy(), keys=keys)
    model = fitted(plain, keys=keys, **arguments)
    assert torch.equal(effects(model), effects(expected))
    np.testing.assert_array_equal(model.predict("P0").X, expected.predict("P0").X)


# -- training ---------------------------------------------------------------------------------------


def test_further_training_keeps_the_effects(plain):
    model = fitted(plain)
    before = effects(model)
    expected = model.predict("P0")
    model.train(**BRIEF)
    assert torch.equal(effects(model), before)
    np.testing.assert_array_equal(model.predict("P0").layers["lower"], expected.layers["lower"])


def test_effects_are_those_of_the_training_cells(plain):
    last = np.arange(plain.n_obs) >= 300
    training = {"datasplitter_kwargs": {"external_indexing": [~last, last]}}
    model = fitted(plain.copy(), training=training)
    rest = {"datasplitter_kwargs": {"external_indexing": [np.arange(300)]}}
    alone = fitted(plain[:300].copy(), training=rest)
    assert torch.equal(effects(model), effects(alone))


def test_effects_are_estimated_without_moments(plain):
    model = fitted(plain.copy(), training={"plan_kwargs": {"from_moments": False}})
    assert torch.equal(effects(model), effects(fitted(plain)))
    model.predict("P0")


def test_an_interrupted_model_predicts(plain):
    class Stop(Callback):
        def on_train_epoch_end(self, trainer, module):
            trainer.should_stop = True

    registered(plain)
    model = EffectVI(plain, n_latent=3)
    model.train(max_epochs=20, min_epochs=1, enable_progress_bar=False, callbacks=[Stop()])
    assert len(model.history["beta"]) < 20
    assert model.predict("P0").shape == (1, plain.n_vars)


def test_a_changed_column_is_named_before_training(plain):
    registered(plain)
    model = EffectVI(plain)
    plain.obs["perturbation"] = plain.obs["perturbation"].astype(str).to_numpy()[::-1]
    with pytest.raises(ValueError, match=r"obs\['perturbation'\] changed after setup"):
        model.train(**BRIEF)


def test_an_untrained_model_refuses(plain):
    registered(plain)
    model = EffectVI(plain)
    calls = {"predict": ["P0"], "interactions": [], "dose_response": [], "state_information": []}
    for name, arguments in calls.items():
        with pytest.raises(RuntimeError, match=r"not trained.*model\.train\(\)"):
            getattr(model, name)(*arguments)
    model.is_trained_ = True
    with pytest.raises(RuntimeError, match="effects were not estimated"):
        model.predict("P0")


def test_siblings_have_the_same_conditions(model):
    other = model.sibling(n_latent=2)
    assert other.module.options.n_latent == 2
    assert other.conditions.perturbations == model.conditions.perturbations
    other.train(**BRIEF)
    assert other.module.head.effects.shape == model.module.head.effects.shape


# -- files, copies ----------------------------------------------------------------------------------


def test_a_loaded_model_predicts_the_same(model, adata, tmp_path):
    model.save(tmp_path / "model", save_anndata=True)
    loaded = EffectVI.load(tmp_path / "model")
    check_same(predictions(loaded), predictions(model))
    one, two = model.module.stored_estimate(), loaded.module.stored_estimate()
    for name, array in one.posterior.prior._asdict().items():
        np.testing.assert_array_equal(getattr(two.posterior.prior, name), array)
    np.testing.assert_array_equal(one.curves.weights, two.curves.weights)
    np.testing.assert_array_equal(
        loaded.get_latent_representation(), model.get_latent_representation()
    )
    assert loaded.interactions()[1].equals(model.interactions()[1])
    assert loaded.dose_response().equals(model.dose_response())
    other = EffectVI.load(tmp_path / "model", adata=adata[:100].copy())
    check_same(other.predict("P0", dose=1.0, context="context_0"), _at(model, "context_0"))
    alone = EffectVI.load(tmp_path / "model", adata=False)
    check_same(predictions(alone), predictions(model))


def _at(model, context):
    found = model.predict("P0", dose=1.0, context=context)
    # intervals of new cells depend on the control cells of the object
    del found.layers["cell_lower"], found.layers["cell_upper"]
    return found


def test_an_untrained_model_is_saved(plain, tmp_path):
    registered(plain)
    EffectVI(plain).save(tmp_path / "model")
    loaded = EffectVI.load(tmp_path / "model", adata=plain)
    with pytest.raises(RuntimeError, match="not trained"):
        loaded.predict("P0")
    loaded.train(**BRIEF)
    assert loaded.predict("P0").shape == (1, plain.n_vars)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_copies_predict_the_same(model, copied):
    other = copied(model)
    check_same(predictions(other), predictions(model))
    other.module.head.effects.zero_()
    assert model.module.head.effects.any()


# -- other cells ------------------------------------------------------------------------------------


def test_cells_of_known_conditions_are_read(model, adata):
    expected = model.get_latent_representation()
    for cells in (
        slice(0, 60),
        adata.obs["perturbation"] == "P0",
        adata.obs["perturbation"] == "control",
    ):
        found = model.get_latent_representation(adata[cells].copy())
        mask = np.zeros(adata.n_obs, dtype=bool)
        mask[cells] = True
        np.testing.assert_allclose(found, expected[mask], atol=1e-5)


UNKNOWN = {
    "perturbation": (
        "P1+P2+P0",
        r"obs\['perturbation'\] has values .* not trained on: 'P1\+P2\+P0'",
    ),
    "context": ("liver", r"obs\['context'\] has values .* not trained on: 'liver'"),
}


@pytest.mark.parametrize("column", UNKNOWN)
def test_cells_of_unknown_conditions_are_named(model, adata, column):
    value, message = UNKNOWN[column]
    perturbed = adata[adata.obs["perturbation"] == "P0"]
    with pytest.raises(ValueError, match=message):
        model.get_latent_representation(query_of(perturbed, 30, **{column: value}))
    with pytest.raises(ValueError, match=message):
        EffectVI.load_query_data(query_of(perturbed, 30, **{column: value}), model)


def test_unknown_doses_and_replicates_are_named(model, adata):
    query = query_of(adata, replicate="replicate_9")
    with pytest.raises(
        ValueError, match=r"obs\['replicate'\] .* write a replicate of the training"
    ):
        model.get_latent_representation(query)
    query = query_of(adata)
    query.obs["dose"] = query.obs["dose"].replace({10.0: 5.0})
    with pytest.raises(ValueError, match=r"obs\['dose'\] .* For new doses, call predict\(\)"):
        model.get_latent_representation(query)


def test_a_query_of_known_conditions_needs_no_training(model, adata, tmp_path):
    model.save(tmp_path / "model")
    expected = model.get_latent_representation(query_of(adata))
    for reference in (model, str(tmp_path / "model")):
        query = EffectVI.load_query_data(query_of(adata, replicate="replicate_9"), reference)
        assert query.is_trained
        np.testing.assert_allclose(query.get_latent_representation(), expected, atol=1e-5)
        np.testing.assert_array_equal(predictions(query).X, predictions(model).X)


def test_a_query_of_a_new_batch_keeps_the_effects(model, adata):
    query = EffectVI.load_query_data(query_of(adata, batch="new"), model)
    with pytest.raises(RuntimeError, match="learn its new categories"):
        query.predict("P0", dose=1.0)
    query.train(**BRIEF)
    assert torch.equal(effects(query), effects(model))
    np.testing.assert_array_equal(predictions(query).X, predictions(model).X)
    assert query.interactions()[1].equals(model.interactions()[1])


def test_minified_objects_and_mudata_are_refused(model):
    with pytest.raises(TypeError, match="EffectVI has no minified objects"):
        model.minify_adata()
    with pytest.raises(TypeError, match="prepare_query_anndata"):
        EffectVI.prepare_query_mudata()
    with pytest.raises(NotImplementedError, match=r"betavi\.convert"):
        EffectVI.convert_legacy_save("a", "b")


# -- shared abilities -------------------------------------------------------------------------------


def test_shared_abilities(model, adata):
    n_cells = adata.n_obs
    assert model.get_latent_representation().shape == (n_cells, 4)
    expression = model.get_normalized_expression(indices=[0, 1])
    np.testing.assert_allclose(expression.sum(axis=1), 1, rtol=1e-4)
    assert np.isfinite(float(model.get_elbo()))
    assert np.isfinite(float(model.get_marginal_ll(n_mc_samples=5)))
    assert np.isfinite(float(model.get_reconstruction_error()["reconstruction_loss"]))
    assert model.posterior_predictive_sample(indices=[0, 1]).shape == (2, adata.n_vars)
    assert len(model.support(**QUIET)) == n_cells
    assert model.get_aggregated_posterior(indices=[0, 1]).mean.shape == (4,)
    assert np.isfinite(model.latent_density().held_out)
    model.denoise(layer_added="denoised", **QUIET)
    assert model.adata.layers["denoised"].shape == adata.shape


@pytest.mark.slow
def test_the_states_are_diagnosed(plain):
    report = fitted(plain, max_epochs=3).diagnose(**QUIET)
    assert "dimensions are used" in str(report)


def test_generated_cells_have_the_condition_of_a_near_cell(model):
    cells = model.generate(30, seed=0, **QUIET)
    near = model.adata.obs.loc[cells.obs["near_cell"]]
    for column in ("perturbation", "dose", "context", "replicate", "batch"):
        assert cells.obs[column].tolist() == near[column].tolist()
    # so the model can read them
    assert model.get_latent_representation(cells.copy()).shape == (30, 4)


def test_denoised_counts_have_the_effects(plain):
    model = fitted(plain, max_epochs=3)
    model.denoise(layer_added="mean", estimate="mean", **QUIET)
    obs, change = model.adata.obs["perturbation"], model.predict("P1").layers["lfc"][0]

    def profile(condition):
        mean = model.adata.layers["mean"][(obs == condition).to_numpy()]
        return np.log2(mean.sum(axis=0) / mean.sum())

    assert np.corrcoef(profile("P1") - profile("control"), change)[0, 1] > 0.9


def test_a_summary_names_the_model(model, capsys):
    assert "EffectVI model" in repr(model) + capsys.readouterr().out
    assert set(CONDITION_FIELDS.values()) <= set(model.registry_["setup_args"])
