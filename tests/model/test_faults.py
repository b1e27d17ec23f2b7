"""Faults that users of scvi-tools, Lightning and anndata reported, each of the whole kind."""

from __future__ import annotations

import copy
import inspect
import multiprocessing
import pickle
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor

import anndata
import joblib
import mudata
import numpy as np
import pandas as pd
import pytest
import scvi
import torch
from lightning.pytorch.callbacks import Callback
from scipy import sparse
from sklearn.neighbors import KNeighborsClassifier

from betavi import BetaVI, JointVI
from betavi.datasets import mosaic, simulate_counts, simulate_multiome
from betavi.train.run_guard import NonFiniteLossError
from tests.conftest import BRIEF, getters

QUIET = {"show_progress": False}


def joint_model(**kwargs):
    mdata = simulate_multiome(n_cells=200, n_genes=30, n_peaks=20, n_batches=2, seed=0)
    JointVI.setup_mudata(mdata, {"rna": "zinb", "adt": "nb_mixture"}, batch_key="batch")
    model = JointVI(mdata, n_latent=4, n_hidden=16)
    model.train(**BRIEF, **kwargs)
    return model


@pytest.fixture(params=["BetaVI", "JointVI"])
def either(request, counts):
    """A briefly trained model of either class."""
    if request.param == "JointVI":
        return joint_model()
    BetaVI.setup_anndata(counts, batch_key="batch")
    model = BetaVI(counts, n_latent=4, n_hidden=16)
    model.train(**BRIEF)
    return model


# -- very deep barcodes -----------------------------------------------------------------------


def with_aggregate(adata):
    """Append one row, the sum of all cells."""
    total = sparse.csr_matrix(np.asarray(adata.X.sum(axis=0)))
    row = anndata.AnnData(total, obs=pd.DataFrame(index=["aggregate"]), var=adata.var[[]].copy())
    return anndata.concat([adata, row], join="outer")


def test_setup_names_barcodes_that_are_far_too_deep(counts):
    both = with_aggregate(counts)
    with pytest.warns(UserWarning, match="10 times the median count of the cells.*'aggregate'"):
        BetaVI.setup_anndata(both)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        BetaVI.setup_anndata(counts)


def test_setup_names_the_modality_of_a_deep_barcode():
    mdata = simulate_multiome(n_cells=200, n_genes=30, n_peaks=20, seed=0)
    adt = mdata["adt"].copy()
    adt.X[7] *= 1000
    with pytest.warns(UserWarning, match=r"mdata\['adt'\].*10 times.*'cell_7'"):
        JointVI.setup_mudata(
            mudata.MuData({"rna": mdata["rna"].copy(), "adt": adt}),
            {"rna": "zinb", "adt": "nb_mixture"},
        )


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("options", "largest_change"), [({}, 0.01), ({"use_observed_lib_size": False}, 0.02)]
)
@pytest.mark.parametrize("n_rows", [1, 9])
def test_several_aggregates_do_not_change_the_other_cells(options, largest_change, n_rows):
    adata = simulate_counts(n_cells=1000, n_genes=60, seed=0)
    parts = np.array_split(np.arange(900), n_rows)
    sums = sparse.csr_matrix(np.vstack([np.asarray(adata.X[part].sum(axis=0)) for part in parts]))
    rows = anndata.AnnData(sums, obs=pd.DataFrame(index=[f"sum_{i}" for i in range(n_rows)]))
    rows.var_names = adata.var_names
    elbo = {}
    for name, data in {"alone": adata, "with": anndata.concat([adata, rows])}.items():
        train, held_out = (
            np.setdiff1d(np.arange(data.n_obs), range(900, 1000)),
            np.arange(900, 1000),
        )
        scvi.settings.seed = 0
        BetaVI.setup_anndata(data)
        model = BetaVI(data, n_latent=5, **options)
        model.train(
            max_epochs=30, enable_progress_bar=False,
            datasplitter_kwargs={"external_indexing": [train, held_out]},
        )  # fmt: skip
        elbo[name] = np.mean([float(model.get_elbo(indices=held_out)) for _ in range(5)])
    assert elbo["with"] == pytest.approx(elbo["alone"], rel=largest_change)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "labels", "n_genes"),
    [("kang_muscat.h5ad", "cluster_id", 1267), ("pancreas_3696x2000.h5ad", "clusters", 1000)],
)
@pytest.mark.filterwarnings("ignore")
def test_an_aggregate_of_all_cells_changes_the_others_by_less_than_one_percent(
    real, file, labels, n_genes
):
    adata = real(file)
    adata.X = adata.X.astype(np.float32)
    order = np.argsort(-np.asarray(adata.X.power(2).mean(axis=0)).ravel())
    adata = adata[:, np.sort(order[:n_genes])].copy()
    held_out = np.arange(0, adata.n_obs, 10)
    elbo, right = {}, {}
    for name, data in {"alone": adata, "with": with_aggregate(adata)}.items():
        scvi.settings.seed = 0
        BetaVI.setup_anndata(data)
        model = BetaVI(data)
        train = np.setdiff1d(np.arange(data.n_obs), held_out)
        model.train(
            max_epochs=30, enable_progress_bar=False,
            datasplitter_kwargs={"external_indexing": [train, held_out]},
        )  # fmt: skip
        elbo[name] = np.mean([float(model.get_elbo(indices=held_out)) for _ in range(5)])
        z, types = model.get_latent_representation(), adata.obs[labels].astype(str).to_numpy()
        cells = train[train < adata.n_obs]
        nearest = KNeighborsClassifier(15).fit(z[cells], types[cells])
        right[name] = nearest.score(z[held_out], types[held_out])
    assert elbo["with"] == pytest.approx(elbo["alone"], rel=0.01)
    assert right["with"] == pytest.approx(right["alone"], abs=0.04)


def joint_elbo(n_deep):
    """Return the -ELBO of ordinary cells beside some antibody aggregates, 500 times as deep."""
    whole = simulate_multiome(n_cells=600, n_genes=100, seed=0)
    parts = {name: whole[name].copy() for name in ("rna", "adt")}
    counts = np.array(parts["adt"].X.toarray())
    counts[:n_deep] *= 500
    parts["adt"].X = counts
    mdata = mudata.MuData(parts)
    JointVI.setup_mudata(mdata, {"rna": "zinb", "adt": "nb_mixture"})
    scvi.settings.seed = 0
    model = JointVI(mdata, n_latent=5, n_hidden=32)
    model.train(60, train_size=1.0, enable_progress_bar=False)
    return -np.mean([float(model.get_elbo(indices=np.arange(3, 600))) for _ in range(5)])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_antibody_aggregates_do_not_change_the_other_cells_of_a_joint_model():
    assert joint_elbo(3) == pytest.approx(joint_elbo(0), rel=0.01)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_few_plate_cells_do_not_change_the_others_with_a_dispersion_by_batch():
    elbos = []
    for depth in (1, 40):
        adata = simulate_counts(n_cells=900, n_genes=100, n_batches=1, seed=0)
        adata.obs["batch"] = ["plate"] * 18 + ["droplet"] * 882
        adata.X[:18] *= depth
        BetaVI.setup_anndata(adata, batch_key="batch")
        scvi.settings.seed = 0
        model = BetaVI(adata, n_latent=5, n_hidden=32, dispersion="gene-batch")
        model.train(30, train_size=1.0, enable_progress_bar=False)
        elbos.append(np.mean([float(model.get_elbo(indices=np.arange(18, 900))) for _ in range(5)]))
    assert elbos[1] == pytest.approx(elbos[0], rel=0.01)


@pytest.mark.filterwarnings("ignore")
def test_bulk_samples_are_named_and_found_outlying_and_have_a_bounded_elbo(model):
    cells = model.adata
    bulk = anndata.AnnData(
        sparse.csr_matrix(np.random.default_rng(0).poisson(2e5, (4, cells.n_vars)).astype("f4")),
        obs=pd.DataFrame({"batch": "batch_0", "cell_type": "type_0"}, index=list("abcd")),
        var=cells.var[[]].copy(),
    )
    bulk.obs["batch"], bulk.obs["cell_type"] = (
        cells.obs["batch"].iloc[0],
        cells.obs["cell_type"].iloc[0],
    )
    with pytest.warns(UserWarning, match="of the training cells.*'a', 'b', 'c', 'd'"):
        per_cell = model.get_elbo(bulk, return_mean=False)
    assert np.abs(np.asarray(per_cell)).max() < 1e7
    assert np.abs(model.get_latent_representation(bulk)).max() < 100
    table = model.support(bulk, **QUIET)
    assert (table["p_value"] < 0.05).all()


# -- an object that is set up twice, and edited columns ---------------------------------------


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("ask", ["sibling", "cross_validate_denoising", "get_elbo", "diagnose"])
def test_a_model_answers_after_its_entries_are_deleted(either, ask):
    options = {"show_progress": False} if ask in ("cross_validate_denoising", "diagnose") else {}
    for key in [key for key in either.adata.uns if key.startswith("_scvi")]:
        del either.adata.uns[key]
    answer = getattr(either, ask)(**options)
    assert ask != "sibling" or answer.adata is either.adata


@pytest.mark.parametrize("between", [None, scvi.model.SCVI])
def test_each_model_trains_and_answers_with_its_own_registration(counts, between):
    counts.obs["other"] = np.random.default_rng(0).choice(["x", "y", "z"], counts.n_obs)
    models = {}
    for key in ("batch", "other"):
        BetaVI.setup_anndata(counts, batch_key=key)
        scvi.settings.seed = 0
        models[key] = BetaVI(counts, n_latent=4)
    if between is not None:
        between.setup_anndata(counts, batch_key="donor")
    for key, model in models.items():
        model.train(**BRIEF)
        assert model.summary_stats.n_batch == counts.obs[key].nunique()
        codes = np.concatenate([part["batch"] for part in model.minibatches(counts)]).ravel()
        np.testing.assert_array_equal(codes, counts.obs[key].astype("category").cat.codes)
        sibling = model.sibling(n_latent=3)
        sibling.train(**BRIEF)
        assert sibling.summary_stats.n_batch == counts.obs[key].nunique()


@pytest.mark.filterwarnings("ignore")
def test_a_joint_object_may_be_set_up_twice():
    mdata = simulate_multiome(n_cells=200, n_genes=30, n_peaks=20, n_batches=2, seed=0)
    mdata.obs["other"] = np.random.default_rng(0).choice(["x", "y", "z"], mdata.n_obs)
    models = []
    for key in ("batch", "other"):
        JointVI.setup_mudata(mdata, {"rna": "zinb", "adt": "nb_mixture"}, batch_key=key)
        models.append(JointVI(mdata, n_latent=4, n_hidden=16))
    for model, n_batches in zip(models, (2, 3), strict=True):
        model.train(**BRIEF)
        codes = np.concatenate([part["batch"] for part in model.minibatches(mdata)])
        assert len(np.unique(codes)) == n_batches


EDITS = {
    "swapped batches": ("batch", lambda values: values[::-1]),
    "renamed batches": ("batch", lambda values: np.char.add(values.astype(str), "_new")),
    "another label": ("cell_type", lambda values: np.roll(values, 1)),
    "another category": ("donor", lambda values: np.roll(values, 1)),
    "scaled numbers": ("age", lambda values: 2 * values),
    "other sizes": ("size", lambda values: values[::-1]),
}


@pytest.mark.parametrize("edit", EDITS)
def test_a_covariate_that_changed_before_training_is_refused_by_name(counts, edit):
    BetaVI.setup_anndata(
        counts, batch_key="batch", labels_key="cell_type", size_factor_key="size",
        categorical_covariate_keys=["donor"], continuous_covariate_keys=["age"],
    )  # fmt: skip
    model = BetaVI(counts, n_latent=4)
    column, change = EDITS[edit]
    before = counts.obs[column].copy()
    counts.obs[column] = change(before.to_numpy())
    with pytest.raises(ValueError, match=rf"obs\['{column}'\] changed after setup"):
        model.train(**BRIEF)
    counts.obs[column] = before
    model.train(**BRIEF)
    # answers need only what was registered
    expected = model.get_latent_representation()
    counts.obs[column] = change(before.to_numpy())
    del counts.obs["_scvi_batch"]
    np.testing.assert_array_equal(model.get_latent_representation(), expected)


@pytest.mark.parametrize("kind", [pd.Index, tuple, np.array, list])
def test_covariate_keys_may_be_any_list(counts, kind):
    BetaVI.setup_anndata(
        counts,
        categorical_covariate_keys=kind(["donor", "batch"]),
        continuous_covariate_keys=kind(["age"]),
    )
    model = BetaVI(counts, n_latent=4)
    model.train(**BRIEF)
    assert list(model.covariates(counts).continuous) == ["age"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([1, "b"], "int, text"),
        (pd.to_datetime(["2020-01-01", "2020-02-01"]), "Timestamp"),
        ([(1, 2), (3, 4)], "tuple"),
        (pd.cut([1, 9], 2), "Interval"),
    ],
)
@pytest.mark.parametrize(
    "argument", [{"batch_key": "x"}, {"labels_key": "x"}, {"categorical_covariate_keys": ["x"]}]
)
def test_categories_that_cannot_be_saved_are_refused_by_name(counts, values, message, argument):
    counts.obs["x"] = pd.Series(list(values) * (counts.n_obs // 2), index=counts.obs_names)
    with pytest.raises(ValueError, match=rf"obs\['x'\].*{message}"):
        BetaVI.setup_anndata(counts, **argument)
    counts.obs["x"] = counts.obs["x"].astype(str)
    BetaVI.setup_anndata(counts, **argument)


def test_a_repeated_column_is_named(counts):
    counts.obs["x"] = "a"
    counts.obs = pd.concat([counts.obs, counts.obs[["x"]]], axis=1)
    with pytest.raises(ValueError, match="several columns 'x'"):
        BetaVI.setup_anndata(counts, batch_key="x")


@pytest.mark.parametrize(
    ("argument", "value"),
    [("size_factor_key", 1e-45), ("size_factor_key", 1e38), ("continuous_covariate_keys", 1e38)],
)
def test_numbers_that_single_precision_cannot_hold_are_named(counts, argument, value):
    counts.obs["x"] = 1.0
    counts.obs.iloc[5, counts.obs.columns.get_loc("x")] = value
    keys = "x" if argument == "size_factor_key" else ["x"]
    with pytest.raises(ValueError, match=r"obs\['x'\].*'cell_5'.*single precision"):
        BetaVI.setup_anndata(counts, **{argument: keys})


def test_a_count_that_cannot_be_computed_with_is_named(counts):
    counts.X = counts.X.toarray().astype(np.float32)
    counts.X[3, 4] = 3e38
    with pytest.raises(ValueError, match=r"too large.*'cell_3'.*'gene_4'"):
        BetaVI.setup_anndata(counts)


def test_repeated_gene_names_of_a_query_are_named(model):
    query = simulate_counts(n_cells=50, n_genes=40, seed=3)
    query.var_names = ["gene_0", "gene_0", *query.var_names[2:]]
    with pytest.raises(ValueError, match=r"repeated feature name.*'gene_0'"):
        BetaVI.prepare_query_anndata(query, model)


def test_groups_that_share_cells_are_refused(model):
    with pytest.raises(ValueError, match=r"both select 2 cell.*'cell_3', 'cell_4'"):
        model.differential_expression(idx1=[1, 2, 3, 4], idx2=[3, 4, 5, 6])


# -- containers -------------------------------------------------------------------------------


def test_masked_arrays_are_refused(counts):
    dense = counts.X.toarray()
    counts.layers["masked"] = np.ma.masked_array(dense, mask=dense > 3)
    with pytest.raises(TypeError, match="masked array"):
        BetaVI.setup_anndata(counts, layer="masked")


@pytest.mark.parametrize("kind", ["zarr", "dask", "sparse dask"])
def test_arrays_of_zarr_and_dask_are_read_in_blocks(counts, kind):
    module = pytest.importorskip(kind.rsplit(" ", maxsplit=1)[-1])
    dense = counts.X.toarray().astype(np.float32)
    if kind == "zarr":
        counts.layers["lazy"] = module.array(dense)
    else:
        chunks = pytest.importorskip("dask.array").from_array(dense, chunks=(100, dense.shape[1]))
        counts.layers["lazy"] = (
            chunks.map_blocks(sparse.csr_matrix) if kind == "sparse dask" else chunks
        )
    BetaVI.setup_anndata(counts, layer="lazy", batch_key="batch")
    model = BetaVI(counts, n_latent=4)
    model.train(**BRIEF)
    lazy = counts.layers["lazy"]
    del counts.layers["lazy"]
    in_memory = counts.copy()
    in_memory.layers["lazy"] = counts.X.copy()
    counts.layers["lazy"] = lazy
    latent = model.get_latent_representation(in_memory)
    np.testing.assert_allclose(model.get_latent_representation(), latent, atol=1e-4)


def test_an_object_that_is_read_lazily_needs_its_table_in_memory(counts, tmp_path):
    pytest.importorskip("dask")
    pytest.importorskip("xarray")
    counts.write_zarr(tmp_path / "x.zarr")
    lazy = anndata.experimental.read_lazy(tmp_path / "x.zarr")
    with pytest.raises(TypeError, match="to_memory"):
        BetaVI.setup_anndata(lazy, batch_key="batch")
    lazy.obs, lazy.var = lazy.obs.to_memory(), lazy.var.to_memory()
    BetaVI.setup_anndata(lazy, batch_key="batch")
    model = BetaVI(lazy, n_latent=4)
    model.train(**BRIEF)
    assert model.get_latent_representation().shape == (counts.n_obs, 4)


# -- pickling and processes -------------------------------------------------------------------


def through_joblib(model, folder):
    joblib.dump(model, folder / "model.joblib")
    return joblib.load(folder / "model.joblib")


WAYS = {
    "pickle": lambda model, _: pickle.loads(pickle.dumps(model)),
    "joblib": through_joblib,
    "deepcopy": lambda model, _: copy.deepcopy(model),
    "twice": lambda model, _: pickle.loads(pickle.dumps(pickle.loads(pickle.dumps(model)))),
    "cloudpickle": lambda model, _: pickle.loads(pytest.importorskip("cloudpickle").dumps(model)),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_pickled_model_gives_the_same_positions(either, way, tmp_path):
    again = WAYS[way](either, tmp_path)
    expected = either.get_latent_representation()
    np.testing.assert_array_equal(again.get_latent_representation(), expected)
    again.train(**BRIEF)
    again.save(tmp_path / "saved")
    np.testing.assert_array_equal(either.get_latent_representation(), expected)


@pytest.mark.parametrize(
    "schedule", ["constant", "linear", "cosine", "cyclical", lambda share: share]
)
def test_a_model_is_pickled_after_any_schedule(counts, schedule, tmp_path):
    BetaVI.setup_anndata(counts)
    untrained = BetaVI(counts, n_latent=4)
    assert not pickle.loads(pickle.dumps(untrained)).is_trained_
    untrained.train(
        **BRIEF, beta_schedule=schedule, early_stopping=True, enable_checkpointing=True,
        default_root_dir=tmp_path,
    )  # fmt: skip
    assert pickle.loads(pickle.dumps(untrained)).is_trained_


def _positions(model, queue):
    queue.put(model.get_latent_representation())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The model has no `adata`")
def test_a_model_that_waits_for_its_data_is_pickled():
    assert pickle.loads(pickle.dumps(BetaVI())).module is None


def test_a_mudata_is_pickled():
    mdata = simulate_multiome(n_cells=30, n_genes=10, missing={"adt": 0.5})
    copied = pickle.loads(pickle.dumps(mdata))
    assert copied.obs_names.equals(mdata.obs_names)
    np.testing.assert_array_equal(copied["rna"].X.toarray(), mdata["rna"].X.toarray())


def test_a_model_can_be_sent_to_a_spawned_process(either):
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=_positions, args=(either, queue))
    process.start()
    found = queue.get(timeout=1500)
    process.join()
    np.testing.assert_array_equal(found, either.get_latent_representation())


SPAWNED = """
from betavi import BetaVI, JointVI
from betavi.datasets import simulate_counts, simulate_multiome

if __name__ == "__main__":
    adata, mdata = simulate_counts(200, 20), simulate_multiome(200, 20)
    BetaVI.setup_anndata(adata)
    JointVI.setup_mudata(mdata, {"rna": "zinb", "adt": "nb_mixture"})
    for model in (BetaVI(adata, n_latent=3), JointVI(mdata, n_latent=3)):
        model.train(2, strategy="ddp_spawn", devices=2, accelerator="cpu", enable_progress_bar=False)
        print("trained", model.is_trained, model.get_latent_representation().shape)
"""


@pytest.mark.slow
def test_models_train_in_two_spawned_processes(tmp_path):
    script = tmp_path / "train.py"
    script.write_text(SPAWNED)
    command = [sys.executable, str(script)]
    found = subprocess.run(command, check=True, capture_output=True, text=True, cwd=tmp_path)
    assert found.stdout.count("trained True (200, 3)") == 2


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_forked_process_answers(tmp_path):
    # several threads work only on matrices of some size
    adata = simulate_counts(n_cells=1000, n_genes=1000, seed=0)
    BetaVI.setup_anndata(adata)
    model = BetaVI(adata)
    torch.set_num_threads(2)
    model.train(**BRIEF)

    def child():
        with pytest.warns(UserWarning, match="forked"):
            found = model.get_latent_representation()
        np.save(tmp_path / "found.npy", found)

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join(120)
    if process.is_alive():
        process.kill()
    assert process.exitcode == 0
    expected = model.get_latent_representation()
    np.testing.assert_allclose(np.load(tmp_path / "found.npy"), expected, atol=1e-4)


def test_a_cache_folder_that_cannot_be_used_is_named(tmp_path, monkeypatch):
    taken = tmp_path / "taken"
    taken.touch()
    monkeypatch.setattr(mosaic.pooch, "os_cache", lambda _: taken / "betavi")
    with pytest.raises(NotADirectoryError, match="XDG_CACHE_HOME"):
        mosaic.pbmc_mosaic()


@pytest.mark.parametrize("error", [PermissionError, OSError])
def test_a_cache_folder_that_is_read_only_is_named(monkeypatch, error):
    def refuse(**_):
        raise error("Read-only file system")

    monkeypatch.setattr(mosaic.pooch, "retrieve", refuse)
    with pytest.raises(error, match="XDG_CACHE_HOME"):
        mosaic.pbmc_mosaic()


def test_a_joint_model_of_a_file_and_with_missing_cells_is_pickled(tmp_path):
    mdata = simulate_multiome(
        n_cells=200, n_genes=30, n_peaks=20, n_batches=2, seed=0, missing={"adt": 0.4}
    )
    mdata.write(tmp_path / "x.h5mu")
    mdata = mudata.read_h5mu(tmp_path / "x.h5mu")
    mdata = mdata[np.random.default_rng(0).permutation(mdata.n_obs)].copy()
    JointVI.setup_mudata(mdata, {"rna": "zinb", "adt": "nb_mixture"}, batch_key="batch")
    model = JointVI(mdata, n_latent=4, n_hidden=16)
    model.train(**BRIEF)
    model.save(tmp_path / "saved", save_anndata=True)
    for one in (model, JointVI.load(tmp_path / "saved")):
        again = pickle.loads(pickle.dumps(one))
        assert again.adata.obs_names.equals(one.adata.obs_names)
        np.testing.assert_array_equal(
            again.get_latent_representation(), one.get_latent_representation()
        )
        counts = one.raw_counts(modality="adt").toarray()
        np.testing.assert_array_equal(again.raw_counts(modality="adt").toarray(), counts)


@pytest.mark.filterwarnings("ignore")
def test_models_that_pickle_cannot_restore_are_refused_with_a_remedy(model, tmp_path):
    query = simulate_counts(n_cells=50, n_genes=40, seed=3)
    query.obs["batch"] = "new"
    mapped = BetaVI.load_query_data(query, model)
    with pytest.raises(TypeError, match=r"query.*save\(folder\)"):
        pickle.dumps(mapped)
    simulate_counts(n_cells=100, n_genes=20, seed=0).write_h5ad(tmp_path / "x.h5ad")
    backed = anndata.read_h5ad(tmp_path / "x.h5ad", backed="r+")
    BetaVI.setup_anndata(backed)
    with pytest.raises(TypeError, match="backed by a file"):
        pickle.dumps(BetaVI(backed, n_latent=2))


# -- runs that end early, and Lightning's arguments -------------------------------------------


class Interrupt(Callback):
    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step == 5:
            raise KeyboardInterrupt


ENDS = {
    "max_time": {"max_epochs": 5000, "max_time": "00:00:00:01"},
    "Ctrl-C": {"max_epochs": 100, "callbacks": [Interrupt()]},
    "fast_dev_run": {"max_epochs": 10, "fast_dev_run": True},
}


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.filterwarnings("ignore:Training was interrupted", "ignore:.*fast_dev_run")
def test_a_run_that_ends_before_the_warm_up_says_so(counts, end, tmp_path):
    BetaVI.setup_anndata(counts)
    model = BetaVI(counts, n_latent=4)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.train(enable_progress_bar=False, **ENDS[end])
    (said,) = [str(w.message) for w in caught if "before the end of the warm-up" in str(w.message)]
    beta = model.module.trained_beta.item()
    assert f"β was {beta:.3g}" in said
    assert beta < 1
    if end != "fast_dev_run":
        # Lightning logs nothing in this mode
        assert model.history["beta"]["beta"].iloc[-1] == pytest.approx(beta, rel=1e-6)
    model.save(tmp_path / "model")
    loaded = BetaVI.load(tmp_path / "model", adata=counts)
    assert loaded.module.trained_beta.item() == pytest.approx(beta)


@pytest.mark.parametrize(
    "run", [{}, {"max_steps": 3}, {"beta_schedule": "constant", "max_steps": 1}]
)
def test_a_run_that_reaches_its_beta_says_nothing(counts, run):
    BetaVI.setup_anndata(counts)
    model = BetaVI(counts, n_latent=4)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*before the end of the warm-up")
        model.train(max_epochs=10, enable_progress_bar=False, **run)
    assert model.module.trained_beta.item() == 1


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "run",
    [
        {"overfit_batches": 1},
        {"overfit_batches": 0.5},
        {"train_size": 1.0, "early_stopping": True, "early_stopping_monitor": "elbo_train"},
        {"train_size": 1.0},
        {"limit_train_batches": 1},
        {"num_sanity_val_steps": 1},
        {"callbacks": Callback()},
    ],
)
def test_arguments_of_lightning_work(counts, run):
    BetaVI.setup_anndata(counts)
    model = BetaVI(counts, n_latent=4)
    model.train(**BRIEF, batch_size=64, **run)
    assert np.isfinite(model.get_latent_representation()).all()


PARTS = {
    "positions": lambda names: [np.arange(200), np.arange(200, 300)],
    "lists": lambda names: [list(range(200)), list(range(200, 300))],
    "masks": lambda names: [np.arange(300) < 200, np.arange(300) >= 200],
    "names": lambda names: [names[:200], list(names[200:])],
    "negative": lambda names: [np.arange(200), np.arange(-100, 0)],
    "three": lambda names: (range(200), None, range(200, 300)),
}


@pytest.mark.parametrize("parts", PARTS)
def test_external_indexing_takes_positions_masks_and_names(counts, parts):
    BetaVI.setup_anndata(counts)
    model = BetaVI(counts, n_latent=4)
    given = PARTS[parts](counts.obs_names)
    model.train(**BRIEF, datasplitter_kwargs={"external_indexing": given})
    np.testing.assert_array_equal(model.train_indices, np.arange(200))
    rest = model.test_indices if parts == "three" else model.validation_indices
    np.testing.assert_array_equal(rest, np.arange(200, 300))


@pytest.mark.parametrize(
    ("parts", "error", "message"),
    [
        ([range(200), range(200, 310)], IndexError, r"external_indexing\[1\].*position 300"),
        ([range(200), range(150, 300)], ValueError, "50 cell.* more than once: 'cell_150'"),
        ([range(200), range(250, 300)], ValueError, "50 cell.* in no part: 'cell_200'"),
        ([["cell_0", "nobody"], None], KeyError, "nobody"),
        ("cell_0", ValueError, "list of one to three"),
        ([], ValueError, "list of one to three"),
    ],
)
def test_faults_of_external_indexing_are_named(counts, parts, error, message):
    BetaVI.setup_anndata(counts)
    model = BetaVI(counts, n_latent=4)
    with pytest.raises(error, match=message):
        model.train(**BRIEF, datasplitter_kwargs={"external_indexing": parts})


# -- a loss that is not finite, and other precisions ------------------------------------------


class Ruin(Callback):
    """Set weights to infinity at the start of an epoch."""

    def __init__(self, epoch):
        self.epoch = epoch

    def on_train_epoch_start(self, trainer, plan):
        if trainer.current_epoch == self.epoch:
            with torch.no_grad():
                next(plan.module.parameters()).fill_(torch.inf)


@pytest.mark.parametrize("epoch", [0, 2])
def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_finite_weights(counts, epoch):
    BetaVI.setup_anndata(counts)
    model = BetaVI(counts, n_latent=4)
    with pytest.raises(NonFiniteLossError, match=r"step \d+ .*'zinb'.*'cell_\d+'") as caught:
        model.train(max_epochs=6, enable_progress_bar=False, callbacks=[Ruin(epoch)])
    assert all(value.isfinite().all() for value in model.module.parameters())
    assert model.is_trained_ == (epoch > 0)
    if epoch:
        assert "end of epoch" in str(caught.value)
        assert np.isfinite(model.get_latent_representation()).all()


def test_weights_that_the_last_step_ruins_are_not_kept(counts):
    class RuinWeights(Callback):
        def on_train_batch_end(self, trainer, plan, outputs, batch, batch_idx):
            if trainer.is_last_batch and trainer.current_epoch == 1:
                next(plan.module.parameters()).data[:] = torch.nan

    BetaVI.setup_anndata(counts)
    model = BetaVI(counts, n_latent=4, n_hidden=16)
    with pytest.raises(NonFiniteLossError, match="after the last step"):
        model.train(**BRIEF | {"max_epochs": 2}, callbacks=[RuinWeights()])
    assert np.isfinite(model.get_latent_representation()).all()


@pytest.mark.parametrize("precision", ["bf16-true", "64-true", "bf16-mixed"])
def test_a_model_answers_after_a_run_in_another_precision(counts, precision):
    BetaVI.setup_anndata(counts)
    model = BetaVI(counts, n_latent=4, beta=0.3)
    model.train(**BRIEF, precision=precision)
    assert all(part.dtype == torch.float32 for part in model.module.parameters())
    assert model.module.trained_beta.item() == pytest.approx(0.3, rel=1e-6)
    assert model.get_latent_representation().dtype == np.float32
    assert np.isfinite(model.support(**QUIET)).all(axis=None)


def test_another_default_type_and_autocast_are_refused(model):
    with torch.autocast("cpu", dtype=torch.bfloat16), pytest.raises(RuntimeError, match="outside"):
        model.get_elbo()
    torch.set_default_dtype(torch.float64)
    try:
        with pytest.raises(RuntimeError, match=r"set_default_dtype\(torch.float32\)"):
            model.get_latent_representation()
        with pytest.raises(RuntimeError, match=r"set_default_dtype\(torch.float32\)"):
            model.train(**BRIEF)
    finally:
        torch.set_default_dtype(torch.float32)


# -- arguments --------------------------------------------------------------------------------

FAULTS = {
    "batch_size": [-1, 0, 1.5, float("nan"), [3], "64", 10**30],
    "n_samples": [0, -2, 2.5, "many", 10**30],
    "n_mc_samples": [0, 1e30, 10**30],
    "layer_added": [["x"], 3],
    "out": [3, ["x.zarr"]],
    "seed": [-1, 1.5, "x"],
}


@pytest.mark.parametrize(
    ("name", "value"), [(k, v) for k, values in FAULTS.items() for v in values]
)
def test_every_method_names_an_argument_of_a_wrong_kind(model, name, value):
    methods = [
        *getters(type(model)),
        "cross_validate_denoising",
        "diagnose",
        "check_false_signals",
        "rate_distortion",
        "train",
    ]
    takes = [m for m in methods if name in inspect.signature(getattr(model, m)).parameters]
    takes += ["train"] if name == "batch_size" else []
    for method in {*takes} - {"get_importance_weights"}:
        arguments = {"n_cells": 5} if method == "generate" else {}
        with pytest.raises((ValueError, TypeError), match=name):
            getattr(model, method)(**arguments, **{name: value})
    assert takes


@pytest.mark.parametrize("layer", [["x"], 3])
def test_a_layer_must_be_a_name(counts, layer):
    with pytest.raises(TypeError, match="`layer` must be a name"):
        BetaVI.setup_anndata(counts, layer=layer)


def test_raw_counts_takes_what_other_methods_take(model):
    names = model.adata.obs_names
    expected = model.raw_counts([3, 1]).toarray()
    np.testing.assert_array_equal(model.raw_counts([names[3], names[1]]).toarray(), expected)
    assert model.raw_counts(slice(0, 5)).shape[0] == 5
    with pytest.raises(IndexError, match="position 300"):
        model.raw_counts([300])


@pytest.mark.filterwarnings("ignore")
def test_a_failed_call_leaves_a_view_a_view(model):
    other = simulate_counts(n_cells=50, n_genes=40, seed=4)
    view = other[:20]
    for ask in (
        lambda: model.get_normalized_expression(view, gene_list=["nope"]),
        lambda: model.get_normalized_expression(view, transform_batch="nope"),
        lambda: model.differential_expression(view, groupby="nope"),
    ):
        with pytest.raises((KeyError, ValueError), match="nope"):
            ask()
        assert view.is_view
        assert view.n_obs == 20
        assert "_scvi_uuid" not in view.uns


@pytest.mark.filterwarnings("ignore")
def test_a_failed_call_leaves_another_object_as_it_was(model):
    other = simulate_counts(n_cells=50, n_genes=40, seed=4)
    before = (list(other.obs), dict(other.obsm), dict(other.uns))
    with pytest.raises(ValueError, match="no batch"):
        model.get_normalized_expression(other, transform_batch="nowhere")
    assert (list(other.obs), dict(other.obsm), dict(other.uns)) == before


@pytest.mark.filterwarnings("ignore")
def test_a_failed_call_leaves_a_view_of_a_mudata_a_view():
    model, other = joint_model(), simulate_multiome(n_cells=50, n_genes=30, n_peaks=20, seed=4)
    other.obs["batch"] = "batch_0"
    view = other[:20]
    for ask in (
        lambda: model.get_normalized_expression(view, gene_list=["nope"]),
        lambda: model.differential_expression(view, groupby="nope", modality="rna"),
    ):
        with pytest.raises((KeyError, ValueError), match="nope"):
            ask()
        assert view.is_view
        assert (view.n_obs, view["rna"].n_obs) == (20, 20)
        assert "_scvi_uuid" not in view.uns
    assert model.get_latent_representation(view).shape == (20, 4)


# -- threads ----------------------------------------------------------------------------------


def test_two_models_train_in_two_threads():
    def train(seed):
        adata = simulate_counts(n_cells=200, n_genes=30, seed=seed)
        BetaVI.setup_anndata(adata)
        model = BetaVI(adata, n_latent=3, n_hidden=16)
        model.train(**BRIEF)
        return model.get_elbo(), model.history["beta"]["beta"].iloc[-1]

    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(train, (0, 1)))
    assert all(np.isfinite(elbo) and beta == 1 for elbo, beta in results)


def test_threads_that_ask_at_once_get_the_same_answer(either):
    expected = either.get_latent_representation()
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: either.get_latent_representation(), range(8)))
    for z in found:
        np.testing.assert_array_equal(z, expected)


# -- modalities without cells -----------------------------------------------------------------


def lacks_proteins(model, is_left_out):
    """Return cells without proteins: alone, or selected in an object that has others."""
    other = simulate_multiome(
        n_cells=40, n_genes=30, n_peaks=20, n_batches=2, seed=4, missing={"adt": 0.5}
    )
    lacking = np.flatnonzero(other.obsmap["adt"] == 0)
    if is_left_out:
        return JointVI.prepare_query_mudata(other[lacking].copy(), model), np.arange(len(lacking))
    return other, lacking


WITHOUT_CELLS = {
    "get_elbo": {},
    "get_normalized_expression": {"modality": "adt"},
    "get_protein_foreground_probability": {},
    "support": QUIET,
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("ask", WITHOUT_CELLS)
@pytest.mark.parametrize("is_left_out", [True, False])
def test_cells_without_a_modality_get_finite_answers(ask, is_left_out):
    model = joint_model()
    data, cells = lacks_proteins(model, is_left_out)
    found = np.asarray(getattr(model, ask)(data, indices=cells, **WITHOUT_CELLS[ask]))
    assert np.isfinite(found.astype(float)).all()
    assert ask == "get_elbo" or len(found) == len(cells)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("is_left_out", [True, False])
def test_groups_without_a_modality_are_refused_by_its_name(is_left_out):
    model = joint_model()
    data, cells = lacks_proteins(model, is_left_out)
    with pytest.raises(ValueError, match="'adt' was not measured"):
        model.differential_expression(data, idx1=cells[:10], modality="adt", silent=True)
