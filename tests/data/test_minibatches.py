"""Rows and minibatches from every kind of container, in every order."""

from __future__ import annotations

import anndata
import mudata
import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse
from scvi.data import AnnDataManagerValidationCheck
from scvi.data.fields import CategoricalObsField, LayerField, MuDataLayerField
from scvi.dataloaders import AnnDataLoader

from betavi.data import CellManager, Rows

N_CELLS, N_GENES = 50, 12

CONTAINERS = {
    "csr_matrix": sparse.csr_matrix,
    "csr_array": sparse.csr_array,
    "csc_matrix": sparse.csc_matrix,
    "csc_array": sparse.csc_array,
    "dense": np.asarray,
    "fortran": np.asfortranarray,
    "int64": lambda x: sparse.csr_matrix(x.astype(np.int64)),
    "uint8": lambda x: x.astype(np.uint8),
    "float64": lambda x: x.astype(np.float64),
}
ORDERS = {
    "all": np.arange(N_CELLS),
    "reversed": np.arange(N_CELLS)[::-1],
    "shuffled": np.random.default_rng(0).permutation(N_CELLS),
    "repeated": np.array([5, 1, 5, 5, 3, 1]),
    "one": np.array([7]),
}
containers = pytest.mark.parametrize("container", CONTAINERS)
orders = pytest.mark.parametrize("order", ORDERS)


def truth():
    rng = np.random.default_rng(0)
    return rng.poisson(0.5, size=(N_CELLS, N_GENES)).astype(np.float32)


def registered(x, path=None):
    adata = anndata.AnnData(x, obs=pd.DataFrame({"batch": np.arange(N_CELLS) % 3}))
    adata.obs_names = [f"cell_{i}" for i in range(N_CELLS)]
    if path is not None:
        adata.write_h5ad(path)
        adata = anndata.read_h5ad(path, backed="r")
    fields = [
        LayerField("X", None, is_count_data=False, correct_data_format=False),
        CategoricalObsField("batch", "batch"),
    ]
    manager = CellManager(fields, {"model_name": "BetaVI", "setup_args": {}})
    manager.register_fields(adata)
    return manager


def collect(loader):
    parts = list(loader)
    return {key: torch.cat([part[key] for part in parts]) for key in parts[0]}


@containers
@orders
@pytest.mark.parametrize("backed", [False, True])
def test_minibatches_are_in_the_order_asked_for(container, order, backed, tmp_path):
    x = CONTAINERS[container](truth())
    manager = registered(x, tmp_path / "x.h5ad" if backed else None)
    cells = ORDERS[order]
    loaded = collect(AnnDataLoader(manager, indices=cells, batch_size=8))
    assert loaded["X"].dtype == torch.float32
    assert loaded["batch"].dtype == torch.int64
    np.testing.assert_array_equal(loaded["X"], truth()[cells])
    np.testing.assert_array_equal(loaded["batch"].squeeze(), cells % 3)


def test_a_mask_chooses_cells():
    mask = np.arange(N_CELLS) % 4 == 1
    loaded = collect(AnnDataLoader(registered(truth()), indices=mask))
    np.testing.assert_array_equal(loaded["X"], truth()[mask])


def test_indices_are_those_of_numpy(tmp_path):
    for path in (None, tmp_path / "x.h5ad"):
        manager = registered(truth(), path)
        last = collect(AnnDataLoader(manager, indices=[-1, 0]))
        np.testing.assert_array_equal(last["X"], truth()[[-1, 0]])
        assert len(AnnDataLoader(manager, indices=[]).dataset) == 0
        with pytest.raises(IndexError, match="integer"):
            AnnDataLoader(manager, indices=[5.0, 1.0])
        with pytest.raises(IndexError, match="out of bounds"):
            AnnDataLoader(manager, indices=[N_CELLS])


def test_shuffling_keeps_fields_of_a_cell_together_and_sees_each_once():
    manager = registered(sparse.csr_matrix(truth()))
    loaded = collect(AnnDataLoader(manager, shuffle=True, batch_size=8))
    rows = {(*x, int(b)) for x, b in zip(truth().tolist(), np.arange(N_CELLS) % 3, strict=True)}
    seen = {(*x, int(b)) for x, b in zip(loaded["X"].tolist(), loaded["batch"], strict=True)}
    assert seen == rows
    assert len(loaded["X"]) == N_CELLS
    assert not np.array_equal(loaded["X"], truth())


def test_sparse_tensors_hold_the_same_counts():
    manager = registered(sparse.csr_matrix(truth()))
    loader = AnnDataLoader(manager, load_sparse_tensor=True, batch_size=20)
    parts = [part["X"] for part in loader]
    assert all(part.layout is torch.sparse_csr for part in parts)
    np.testing.assert_array_equal(torch.cat([p.to_dense() for p in parts]), truth())


def test_only_the_fields_asked_for_are_read():
    loaded = collect(AnnDataLoader(registered(truth()), data_and_attributes=["batch"]))
    assert set(loaded) == {"batch"}


def test_worker_processes_read_the_same():
    manager = registered(sparse.csr_matrix(truth()))
    loader = AnnDataLoader(manager, batch_size=8, num_workers=1, persistent_workers=False)
    np.testing.assert_array_equal(collect(loader)["X"], truth())


@containers
def test_totals_and_blocks_cover_the_matrix(container, monkeypatch):
    for name in ("SCANNED_ENTRIES", "FILE_ENTRIES"):
        monkeypatch.setattr(f"betavi._blocks.{name}", 2 * N_GENES)
    rows = Rows(CONTAINERS[container](truth()))
    assert rows.shape == (N_CELLS, N_GENES)
    np.testing.assert_allclose(rows.totals(), truth().sum(axis=1))
    blocks = list(rows.blocks())
    assert len(blocks) > 1
    for start, block in blocks:
        dense = block.toarray() if sparse.issparse(block) else block
        np.testing.assert_array_equal(dense, truth()[start : start + len(dense)])
    assert sum(block.shape[0] for _, block in blocks) == N_CELLS


def test_an_unreadable_container_is_named():
    with pytest.raises(TypeError, match="list"):
        Rows([[1, 2]])


@containers
@orders
def test_cells_of_several_modalities_are_rows_of_each_and_zeros_where_it_is_missing(
    container, order
):
    """Modalities in orders of their own, of which cells lack one or the other."""
    x, rng = truth(), np.random.default_rng(1)
    names = np.array([f"cell_{i}" for i in range(N_CELLS)])
    has = {"rna": rng.permutation(N_CELLS)[:35], "adt": rng.permutation(N_CELLS)[:30]}
    # every cell has something
    has["adt"] = np.union1d(has["adt"], np.setdiff1d(np.arange(N_CELLS), has["rna"]))[::-1]
    parts = {
        key: anndata.AnnData(CONTAINERS[container](x[rows]), obs=pd.DataFrame(index=names[rows]))
        for key, rows in has.items()
    }
    mdata = mudata.MuData(parts)
    fields = [
        MuDataLayerField(key, None, mod_key=key, is_count_data=False, correct_data_format=False)
        for key in has
    ]
    manager = CellManager(
        fields,
        {"model_name": "JointVI", "setup_args": {}},
        AnnDataManagerValidationCheck(check_fully_paired_mudata=False),
    )
    manager.register_fields(mdata)
    some = manager.create_torch_dataset()[ORDERS[order]]
    cells = np.array([int(name.removeprefix("cell_")) for name in mdata.obs_names[ORDERS[order]]])
    for key, rows in has.items():
        here = np.isin(cells, rows)
        np.testing.assert_array_equal(some[f"{key}_present"].squeeze(1).numpy(), here)
        np.testing.assert_array_equal(some[key].numpy(), np.where(here[:, None], x[cells], 0))
        cut = manager.rows(key)[ORDERS[order]]
        np.testing.assert_array_equal(cut.toarray(), some[key].numpy())
