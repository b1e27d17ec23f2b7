"""scvi-tools' contract for datamodules, with our own datamodule and with scvi-tools' on the newest versions."""

from __future__ import annotations

import numpy as np
import pytest
import scvi

from betavi import BetaVI, JointVI
from betavi.data import StackedRows, StoreDataModule, read_lazy
from betavi.datasets import simulate_counts, simulate_multiome
from tests.conftest import BRIEF

pytestmark = pytest.mark.filterwarnings("ignore")


def single(folder):
    adata = simulate_counts(n_cells=300, n_genes=20)
    adata[:100].copy().write_h5ad(folder / "one.h5ad")
    adata[100:].copy().write_zarr(folder / "two.zarr")
    paths = [folder / "one.h5ad", folder / "two.zarr"]
    return adata, paths, {"batch_key": "batch", "labels_key": "cell_type"}


def joint(folder):
    mdata = simulate_multiome(n_cells=300)
    mdata.write(folder / "cells.h5mu")
    return mdata, folder / "cells.h5mu", {"likelihoods": dict.fromkeys(mdata.mod, "nb")}


CLASSES = {BetaVI: single, JointVI: joint}


@pytest.fixture(params=CLASSES)
def kind(request, tmp_path):
    return request.param, *CLASSES[request.param](tmp_path)


def test_the_contract_of_a_datamodule(kind, tmp_path):
    cls, _, paths, setup = kind
    cells = StoreDataModule(cls, paths, train_size=0.8, batch_size=50, **setup)
    model = cls(registry=cells.registry, n_latent=3)
    model.train(datamodule=cells, check_val_every_n_epoch=1, **BRIEF)
    assert np.isfinite(model.history["elbo_validation"].to_numpy(dtype=float)).all()
    assert (len(cells.train_idx), len(cells.val_idx)) == (240, 60)

    def answers(model):
        scvi.settings.seed = 1
        latent = model.get_latent_representation(dataloader=cells.inference_dataloader())
        elbo = model.get_elbo(dataloader=cells.inference_dataloader(), return_mean=False)
        return latent, np.asarray(elbo)

    latent, elbo = answers(model)
    assert latent.shape == (300, 3)
    some = cells.inference_dataloader([299, 0, 150], batch_size=2)
    np.testing.assert_allclose(
        model.get_latent_representation(dataloader=some), latent[[299, 0, 150]], atol=1e-5
    )
    model.save(tmp_path / "model", datamodule=cells)
    for one, other in zip(
        answers(cls.load(tmp_path / "model", adata=False)), (latent, elbo), strict=True
    ):
        np.testing.assert_array_equal(one, other)
    # the object is set up, so a model of it answers every method
    loaded = cls.load(tmp_path / "model", adata=cells.adata)
    np.testing.assert_allclose(loaded.get_latent_representation(), latent, atol=1e-5)


def test_sizes_and_names(kind):
    cls, data, paths, setup = kind
    cells = StoreDataModule(cls, paths, **setup)
    assert (cells.n_obs, cells.n_vars) == data.shape
    assert cells.n_batch == len(cells.batch_labels)
    assert cells.n_labels == len(cells.label_keys)
    assert cells.n_samples == 1
    if cls is BetaVI:
        assert cells.batch_labels.tolist() == ["batch_0", "batch_1"]
        assert cells.labels.tolist() == data.obs["cell_type"].tolist()


def test_a_model_without_an_object_trains_as_one_with_it(kind):
    """Start values, typical sizes and priors are those of the cells."""
    cls, _, paths, setup = kind
    elbos = []
    for has_object in (True, False):
        cells = StoreDataModule(cls, paths, **setup)
        scvi.settings.seed = 0
        arguments = {"adata": cells.adata} if has_object else {"registry": cells.registry}
        model = cls(**arguments, n_latent=3)
        scvi.settings.seed = 0
        model.train(datamodule=cells, **BRIEF)
        scvi.settings.seed = 0
        elbos.append(float(model.get_elbo(dataloader=cells.inference_dataloader())))
    assert elbos[0] == pytest.approx(elbos[1], rel=1e-6)


def test_inferred_library_sizes_start_at_those_of_the_cells(tmp_path):
    _, paths, setup = single(tmp_path)
    cells = StoreDataModule(BetaVI, paths, **setup)
    model = BetaVI(registry=cells.registry, use_observed_lib_size=False)
    model.train(datamodule=cells, **BRIEF)
    other = BetaVI(cells.adata, use_observed_lib_size=False)
    np.testing.assert_allclose(model.module.library_log_means, other.module.library_log_means)


def test_a_query_from_files(tmp_path):
    _, paths, setup = single(tmp_path)
    reference = StoreDataModule(BetaVI, paths[0], **setup)
    model = BetaVI(reference.adata, n_latent=3)
    model.train(datamodule=reference, **BRIEF)
    query = read_lazy(paths[1])
    backwards = query.copy()
    backwards.var_names = query.var_names[::-1]
    with pytest.raises(
        ValueError, match=r"genes of .*two\.zarr' differ from those of the reference"
    ):
        BetaVI.prepare_query_anndata(backwards, model)
    BetaVI.prepare_query_anndata(query, model)
    mapped = BetaVI.load_query_data(query, model)
    mapped.train(**BRIEF)
    latent = mapped.get_latent_representation()
    assert latent.shape == (200, 3)
    # by the contract of a datamodule, without an object
    known = StoreDataModule(BetaVI, paths[1], reference=model, extend_categories=True)
    mapped = BetaVI.load_query_data(reference_model=model, registry=known.registry)
    mapped.train(datamodule=known, **BRIEF)
    assert mapped.summary_stats.n_batch == model.summary_stats.n_batch
    again = mapped.get_latent_representation(dataloader=known.inference_dataloader())
    np.testing.assert_allclose(again, latent, atol=0.2)
    other = read_lazy(paths[1])
    other.obs["batch"] = "new"
    unknown = StoreDataModule(BetaVI, other, **setup)
    with pytest.raises(ValueError, match=r"has the batches 'new', but must begin with.*'batch_0'"):
        BetaVI.load_query_data(reference_model=model, registry=unknown.registry)
    assert isinstance(query.X, StackedRows)


def test_new_cells_are_numbered_as_the_cells_of_the_model(tmp_path):
    adata, paths, setup = single(tmp_path)
    cells = StoreDataModule(BetaVI, paths, **setup)
    model = BetaVI(registry=cells.registry, n_latent=3)
    model.train(datamodule=cells, **BRIEF)
    adata = adata[adata.obs["batch"] == "batch_1"].copy()
    adata.obs = adata.obs.astype({"batch": str, "cell_type": str})
    other = StoreDataModule(BetaVI, adata.copy(), **setup)
    for call in (model.get_elbo, model.get_latent_representation, model.get_reconstruction_error):
        with pytest.raises(
            ValueError, match=r"differ in 'categorical_mapping' of 'batch'.*reference="
        ):
            call(dataloader=other.inference_dataloader())
    with pytest.raises(ValueError, match=r"differ in 'categorical_mapping'.*reference="):
        model.train(datamodule=other, **BRIEF)
    turned = StoreDataModule(BetaVI, adata[:, ::-1].copy(), **setup)
    with pytest.raises(ValueError, match=r"differ in 'column_names' of 'X'"):
        model.get_elbo(dataloader=turned.inference_dataloader())
    same = StoreDataModule(BetaVI, adata.copy(), reference=model)
    scvi.settings.seed = 1
    found = model.get_elbo(dataloader=same.inference_dataloader())
    rows = np.flatnonzero(cells.adata.obs["batch"] == "batch_1")
    scvi.settings.seed = 1
    assert float(found) == pytest.approx(
        float(model.get_elbo(dataloader=cells.inference_dataloader(rows))), rel=1e-6
    )
    with pytest.raises(ValueError, match=r"`batch_size` has no effect with `datamodule`"):
        model.train(datamodule=cells, batch_size=7, **BRIEF)


def test_the_default_number_of_epochs_is_that_of_the_model(kind):
    cls, _, paths, setup = kind
    cells = StoreDataModule(cls, paths, **setup)
    planned = []
    for arguments in ({}, {"datamodule": cells}):
        model = cls(cells.adata, n_latent=3)
        model.train(max_steps=1, enable_progress_bar=False, accelerator="cpu", **arguments)
        planned.append(model.trainer.max_epochs)
    assert planned[0] == planned[1] == (30 if cls is BetaVI else 100)


def test_an_object_in_place_of_paths(tmp_path):
    adata, _, setup = single(tmp_path)
    cells = StoreDataModule(BetaVI, adata, **setup)
    assert cells.adata is adata
    BetaVI(registry=cells.registry).train(datamodule=cells, **BRIEF)


def test_bad_files_are_refused_before_training(tmp_path):
    adata, paths, setup = single(tmp_path)
    with pytest.raises(KeyError, match="donor"):
        StoreDataModule(BetaVI, paths, batch_key="donor")
    adata.X = adata.X.astype(float)
    adata.X.data[7] = -1.0
    adata.write_h5ad(tmp_path / "bad.h5ad")
    with pytest.raises(ValueError, match=r"negative: -1\.0 in cell 'cell_\d+'.*gene 'gene_\d+'"):
        StoreDataModule(BetaVI, tmp_path / "bad.h5ad", **setup)
    with pytest.raises(TypeError, match="MuData"):
        StoreDataModule(BetaVI, joint(tmp_path)[1])


def test_the_datamodule_of_annbatch(tmp_path):
    pytest.importorskip("annbatch", reason="annbatch needs Python 3.12 and scvi-tools 1.5")
    adata = simulate_counts(n_cells=600, n_genes=20)
    adata.X = adata.X.astype(np.float32)
    adata.write_h5ad(tmp_path / "cells.h5ad")
    cells = BetaVI.setup_annbatch(
        collection_path=str(tmp_path / "collection.zarr"), paths=[str(tmp_path / "cells.h5ad")],
        batch_key="batch", batch_size=64, chunk_size=32, preload_nchunks=4, preload_to_gpu=False,
    )  # fmt: skip
    model = BetaVI(registry=cells.registry, n_latent=3)
    model.train(datamodule=cells, train_size=0.9, **BRIEF)
    latent = model.get_latent_representation(dataloader=cells.inference_dataloader())
    assert latent.shape == (600, 3)
    model.save(tmp_path / "model", datamodule=cells)
    loaded = BetaVI.load(tmp_path / "model", adata=False, datamodule=cells)
    again = loaded.get_latent_representation(dataloader=cells.inference_dataloader())
    np.testing.assert_array_equal(again, latent)


def collection_of_lamindb(folder, adata):
    """Store the cells as two files in a new database of LaminDB and return them as one collection."""
    # lamindb reads the database at import, so that the database has to be there first
    lamindb_setup = pytest.importorskip("lamindb_setup", reason="lamindb is not installed")
    lamindb_setup.init(storage=str(folder / "store"))
    import lamindb

    halves = {"first.h5ad": adata[:300].copy(), "second.h5ad": adata[300:].copy()}
    files = [lamindb.Artifact.from_anndata(part, key=key).save() for key, part in halves.items()]
    return lamindb.Collection(files, key="cells").save()


def test_the_datamodule_of_lamindb(tmp_path, monkeypatch):
    monkeypatch.setenv("LAMIN_SETTINGS_DIR", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    adata = simulate_counts(n_cells=600, n_genes=20)
    adata.X = adata.X.astype(np.float32)
    collection = collection_of_lamindb(tmp_path, adata)
    from scvi.dataloaders import MappedCollectionDataModule

    cells = MappedCollectionDataModule(
        collection, batch_key="batch", batch_size=64, parallel=False, model_name="BetaVI"
    )
    model = BetaVI(registry=cells.registry, n_latent=3)
    model.train(datamodule=cells, **BRIEF)
    latent = model.get_latent_representation(dataloader=cells.inference_dataloader())
    assert latent.shape == (600, 3)
    model.save(tmp_path / "model", datamodule=cells)
    loaded = BetaVI.load(tmp_path / "model", adata=False, datamodule=cells)
    again = loaded.get_latent_representation(dataloader=cells.inference_dataloader())
    np.testing.assert_array_equal(again, latent)
    # the same cells in memory have the same positions
    BetaVI.setup_anndata(adata, batch_key="batch")
    in_memory = BetaVI.load(tmp_path / "model", adata=adata)
    np.testing.assert_allclose(in_memory.get_latent_representation(), latent, atol=1e-4)
