"""Minibatches of resident counts are those of scvi-tools' own loader."""

from __future__ import annotations

import anndata
import numpy as np
import pytest
import scvi
import torch
from scipy import sparse
from scvi.dataloaders import AnnDataLoader

from betavi import BetaVI, JointVI
from betavi.data import Rows, split
from betavi.data.loader import DeviceCounts, ResidentCells, fits, shuffled
from betavi.datasets import simulate_counts, simulate_multiome
from betavi.kernels import dense
from tests.conftest import BRIEF

CPU = torch.device("cpu")
FORMS = {
    "csr": sparse.csr_matrix,
    "csr_array": sparse.csr_array,
    "csc": sparse.csc_matrix,
    "dense": lambda x: x.toarray(),
    "unsigned": lambda x: x.astype(np.uint16),
    "twice": lambda x: twice_stored(x),
}


def twice_stored(x):
    """Store every count as two entries of its place, neither sorted nor summed."""
    doubled = sparse.coo_matrix(x)
    some = doubled.data // 2
    parts = (np.concatenate([some, doubled.data - some]), np.tile(doubled.col, 2))
    order = np.argsort(np.tile(doubled.row, 2), kind="stable")
    counts = np.bincount(np.tile(doubled.row, 2), minlength=x.shape[0])
    indptr = np.concatenate([[0], np.cumsum(counts)])
    return sparse.csr_matrix((parts[0][order], parts[1][order], indptr), shape=x.shape)


def registered(form, n_genes=30):
    adata = simulate_counts(n_cells=90, n_genes=n_genes, library_size=3.0)
    adata.X = FORMS[form](adata.X)
    adata.obs["age"] = np.arange(adata.n_obs, dtype=float)
    BetaVI.setup_anndata(
        adata, batch_key="batch", continuous_covariate_keys=["age"], keep_empty_cells=True
    )
    return BetaVI(adata).adata_manager


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("drop_last", [True, False])
def test_the_same_minibatches_in_the_same_order(form, drop_last):
    manager, cells = registered(form), np.arange(5, 85)
    expected = manager.adata.X.toarray() if form != "dense" else manager.adata.X
    options = {"indices": cells, "shuffle": True, "drop_last": drop_last, "batch_size": 32}
    scvi.settings.seed = 3
    theirs = list(AnnDataLoader(manager, **options))
    scvi.settings.seed = 3
    resident = ResidentCells(manager.create_torch_dataset(cells), CPU)
    ours = list(shuffled(resident, 32, drop_last))
    assert len(ours) == len(theirs) == (2 if drop_last else 3)
    for one, other in zip(ours, theirs, strict=True):
        assert one.keys() == other.keys()
        for key, value in other.items():
            assert one[key].dtype == value.dtype, key
            torch.testing.assert_close(dense(one[key]), value)
        rows = one["extra_continuous_covs"].squeeze(1).long().numpy()
        np.testing.assert_array_equal(dense(one["X"]).numpy(), expected[rows])


def test_counts_are_cut_with_their_zeros():
    manager = registered("csr")
    resident = ResidentCells(manager.create_torch_dataset(), CPU)
    cells = [4, 80, 4, 0]
    counts = resident[cells]["X"]
    assert counts.layout == torch.strided
    np.testing.assert_array_equal(counts.numpy(), manager.adata.X[cells].toarray())


def test_a_cell_without_the_modality_has_no_counts():
    matrix = sparse.csr_matrix(np.diag([1.0, 2.0, 3.0]).astype(np.float32))
    counts = DeviceCounts(matrix, np.array([2, -1, 0]), CPU)
    expected = [[0, 0, 3], [0, 0, 0], [1, 0, 0], [0, 0, 0]]
    np.testing.assert_array_equal(dense(counts.cut(torch.tensor([0, 1, 2, 1]))).numpy(), expected)


def test_joint_minibatches_say_who_has_what():
    mdata = simulate_multiome(n_cells=60)
    names = list(mdata.mod)
    mdata.mod[names[0]] = mdata[names[0]][:40].copy()
    mdata.update()
    JointVI.setup_mudata(mdata, dict.fromkeys(names, "nb"))
    manager = JointVI(mdata).adata_manager
    cells = np.arange(60)
    whole = manager.create_torch_dataset(cells)
    resident = ResidentCells(manager.create_torch_dataset(cells), CPU)
    for key, value in whole[:].items():
        torch.testing.assert_close(dense(resident[list(range(60))][key]), value)


def test_what_is_in_a_file_is_not_resident(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (10**9, 10**9))
    adata = simulate_counts(n_cells=30, n_genes=10)
    adata.write_h5ad(tmp_path / "x.h5ad")
    backed = anndata.read_h5ad(tmp_path / "x.h5ad", backed="r")
    for held, resides in ((adata, True), (backed, False)):
        BetaVI.setup_anndata(held)
        dataset = BetaVI(held).adata_manager.create_torch_dataset()
        assert fits(dataset, torch.device("cuda")) is resides


@pytest.mark.parametrize(("free", "resides"), [(10**9, True), (10**3, False)])
def test_counts_go_to_a_gpu_if_they_leave_it_half_of_its_memory(monkeypatch, free, resides):
    dataset = registered("csr").create_torch_dataset()
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (free, free))
    assert fits(dataset, torch.device("cuda")) is resides


def test_a_dense_field_is_judged_by_the_type_it_has_on_the_device(monkeypatch):
    dataset = registered("dense").create_torch_dataset()
    n_counts = np.prod(dataset.fields["X"].shape)
    dataset.fields["X"]._data = dataset.fields["X"]._data.astype(np.int8)
    # enough for bytes, and not for single precision
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (5 * n_counts, 5 * n_counts))
    assert not fits(dataset, torch.device("cuda"))


def test_a_trained_model_keeps_no_counts_on_the_device(counts, monkeypatch):
    # as on a GPU
    monkeypatch.setattr(split, "fits", lambda *_: True)
    BetaVI.setup_anndata(counts)
    model = BetaVI(counts)
    model.train(**BRIEF)
    assert not model.trainer.datamodule._resident.parts
    model.train(**BRIEF)


@pytest.mark.parametrize("device", ["cpu", "mps"])
def test_other_devices_are_fed_by_the_host(device):
    assert not fits(registered("csr").create_torch_dataset(), torch.device(device))


@pytest.mark.parametrize("load_sparse_tensor", [False, True])
def test_small_integers_stored_twice_do_not_overflow(load_sparse_tensor):
    matrix = sparse.csr_matrix(
        (np.array([200, 200, 1], np.uint8), np.array([0, 0, 1]), np.array([0, 2, 3])), shape=(2, 2)
    )
    dataset = registered("twice").create_torch_dataset(load_sparse_tensor=load_sparse_tensor)
    cut = dataset._cut(Rows(matrix), np.arange(2), np.float32)
    assert cut.to_dense().tolist() == [[400.0, 0.0], [0.0, 1.0]]


def test_entries_stored_twice_are_one_count_where_they_are_cut_row_by_row():
    manager = registered("twice")
    matrix = manager.adata.X
    matrix.data = matrix.data.astype(np.float32)
    cut = manager.create_torch_dataset(np.arange(20), load_sparse_tensor=True)[:]["X"]
    expected = matrix[:20].toarray()
    np.testing.assert_array_equal(cut.to_dense().numpy(), expected)
    assert len(cut.values()) == (expected > 0).sum() + (cut.values() == 0).sum()
