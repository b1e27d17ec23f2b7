"""Minibatches of cells in files: each cell once, in a new order, read in blocks, the same for a seed."""

from __future__ import annotations

import numpy as np
import pytest
import scvi
import torch
from lightning.pytorch import Callback
from scipy import stats

from betavi import BetaVI, JointVI, _blocks
from betavi.data import DataSplitter, StackedRows, read_lazy
from betavi.data.file_loader import FileMinibatches, blocks_in_random_order, split_order
from betavi.datasets import pbmc_mosaic, simulate_counts
from betavi.kernels import dense
from tests.conftest import BRIEF


@pytest.fixture
def lazy(tmp_path):
    """Cells in two files, whose first gene counts the cells."""
    adata = simulate_counts(n_cells=2000, n_genes=12)
    counts = adata.X.toarray()
    counts[:, 0] = np.arange(2000) + 1
    adata.X = type(adata.X)(counts)
    adata[:700].copy().write_h5ad(tmp_path / "one.h5ad")
    adata[700:].copy().write_zarr(tmp_path / "two.zarr")
    lazy = read_lazy([tmp_path / "one.h5ad", tmp_path / "two.zarr"])
    BetaVI.setup_anndata(lazy, batch_key="batch")
    return lazy


def manager(lazy):
    return BetaVI._get_most_recent_anndata_manager(lazy)


def cells_of(minibatches):
    """Return the numbers of the cells, in the order in which they came."""
    return [dense(part["X"])[:, 0].long().numpy() - 1 for part in minibatches]


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("mixed", [1, 2**10, 2**22])
def test_each_cell_comes_once_an_epoch_and_with_its_own_covariates(
    lazy, monkeypatch, mixed, drop_last
):
    monkeypatch.setattr(_blocks, "FILE_ENTRIES", mixed)
    monkeypatch.setattr("betavi.data.file_loader.BLOCKS_AT_ONCE", 1)
    chosen = np.random.default_rng(0).permutation(2000)[:1500]
    dataset = manager(lazy).create_torch_dataset(chosen, load_sparse_tensor=True)
    loader = FileMinibatches(dataset, 128, drop_last)
    minibatches = list(loader)
    cells = cells_of(minibatches)
    assert len(cells) == len(loader)
    found = np.concatenate(cells)
    assert len(np.unique(found)) == len(found) == (1408 if drop_last else 1500)
    assert set(found) <= set(chosen)
    assert {len(part) for part in cells[:-1]} == {128}
    codes = torch.cat([part["batch"] for part in minibatches]).ravel().numpy()
    np.testing.assert_array_equal(codes, lazy.obs["_scvi_batch"].to_numpy()[found])
    other = np.concatenate(cells_of(loader))
    assert (found != other).any()


@pytest.mark.parametrize("drop_last", [False, True])
def test_processes_share_the_cells_of_each_step(lazy, drop_last):
    dataset = manager(lazy).create_torch_dataset(np.arange(1999), load_sparse_tensor=True)
    shares = [
        [cells_of(loader) for _ in range(2)]
        for loader in (FileMinibatches(dataset, 150, drop_last, rank, 3, 7) for rank in range(3))
    ]
    for epoch in range(2):
        minibatches = [share[epoch] for share in shares]
        sizes = [[len(cells) for cells in one] for one in minibatches]
        steps = np.sum(sizes, axis=0)
        assert steps.tolist() == [450] * 4 + ([] if drop_last else [199])
        assert np.ptp(sizes, axis=0).max() <= 1
        found = np.concatenate([cells for one in minibatches for cells in one])
        assert len(np.unique(found)) == len(found) == steps.sum()
    assert any((one != two).any() for one, two in zip(*shares[0], strict=True))


def test_the_order_is_random_and_follows_the_seed(lazy):
    dataset = manager(lazy).create_torch_dataset(load_sparse_tensor=True)

    def order(seed):
        scvi.settings.seed = seed
        return np.concatenate(cells_of(FileMinibatches(dataset, 100, False)))

    np.testing.assert_array_equal(order(1), order(1))
    assert (order(1) != order(2)).any()
    # a minibatch is a sample of all cells, not of one place in the file
    assert stats.kstest(order(1)[:100] / 2000, "uniform").pvalue > 0.001
    assert abs(np.corrcoef(order(1), np.arange(2000))[0, 1]) < 0.1


def test_cells_are_read_in_blocks(lazy, monkeypatch):
    reads = []
    read = StackedRows._read
    monkeypatch.setattr(
        StackedRows, "_read", lambda self, a, b: reads.append(b - a) or read(self, a, b)
    )
    dataset = manager(lazy).create_torch_dataset(np.arange(0, 2000), load_sparse_tensor=True)
    loader = FileMinibatches(dataset, 128, False)
    monkeypatch.setattr(_blocks, "FILE_ENTRIES", 1)
    monkeypatch.setattr("betavi.data.file_loader.BLOCKS_AT_ONCE", 4)
    list(loader)
    # the chunks of so small a file hold all of its cells, so that blocks are as large
    assert loader.block_size >= 64
    assert sum(reads) == 2000
    assert len(reads) <= 2000 / 64 + 5


def test_large_chunks_do_not_enlarge_what_is_in_memory(lazy):
    dataset = manager(lazy).create_torch_dataset(load_sparse_tensor=True)
    loader = FileMinibatches(dataset, 128, False)
    usual = loader.n_mixed
    for part in lazy.X.parts:
        part.chunk_rows = 10**6
    assert loader.n_mixed == usual
    assert loader.block_size * 32 <= usual


def test_blocks_keep_their_cells_together():
    order = blocks_in_random_order(np.arange(10, 310), 64, np.random.default_rng(0))
    assert sorted(order) == list(range(10, 310))
    steps = np.flatnonzero(np.diff(order) != 1)
    assert len(steps) <= 4


@pytest.mark.parametrize(("n_cells", "longest"), [(50, 1), (5000, 5), (200_000, 64)])
def test_held_out_cells_are_many_blocks_from_all_over_the_file(n_cells, longest):
    order = split_order(n_cells, np.random.default_rng(0))
    assert sorted(order) == list(range(n_cells))
    held_out = np.sort(order[: n_cells // 10])
    n_blocks = (np.diff(held_out) > 1).sum() + 1
    assert n_blocks >= min(len(held_out), 100) / 2
    assert n_blocks >= len(held_out) / longest / 2
    starts = held_out[np.diff(held_out, prepend=-2) > 1]
    assert stats.kstest(starts / n_cells, "uniform").pvalue > 0.001


def test_the_splitter_holds_out_blocks_of_a_file_and_cells_in_memory(lazy):
    splitter = DataSplitter(manager(lazy), train_size=0.7, validation_size=0.2)
    splitter.setup()
    parts = splitter.val_idx, splitter.train_idx, splitter.test_idx
    assert [len(part) for part in parts] == [400, 1400, 200]
    assert sorted(np.concatenate(parts)) == list(range(2000))
    assert (np.diff(splitter.val_idx) == 1).mean() > 0.4
    again = DataSplitter(manager(lazy), train_size=0.7, validation_size=0.2)
    again.setup()
    np.testing.assert_array_equal(splitter.val_idx, again.val_idx)
    in_order = DataSplitter(manager(lazy), train_size=0.7, shuffle_set_split=False)
    in_order.setup()
    assert in_order.val_idx.tolist() == list(range(600))
    chosen = [np.arange(1000, 2000), np.arange(1000), np.array([], dtype=int)]
    given = DataSplitter(manager(lazy), external_indexing=chosen)
    given.setup()
    np.testing.assert_array_equal(given.train_idx, np.arange(1000, 2000))


class Layouts(Callback):
    """Layout of the counts that the training step gets."""

    def __init__(self):
        self.found = set()

    def on_train_batch_start(self, trainer, plan, batch, index):
        self.found.add(batch["X"].layout)


def test_training_gets_sparse_counts_from_a_file_as_from_memory(tmp_path):
    adata = simulate_counts(n_cells=300, n_genes=400, library_size=50)
    adata.write_h5ad(tmp_path / "cells.h5ad")
    for data in (adata, read_lazy(tmp_path / "cells.h5ad")):
        BetaVI.setup_anndata(data)
        layouts = Layouts()
        BetaVI(data, n_latent=2).train(**BRIEF, callbacks=[layouts])
        assert layouts.found == {torch.sparse_csr}


def test_one_seed_trains_the_same_model_twice(lazy):
    def weights():
        scvi.settings.seed = 3
        model = BetaVI(lazy, n_latent=2)
        model.train(**BRIEF)
        return torch.cat([part.detach().ravel() for part in model.module.parameters()])

    assert torch.equal(weights(), weights())


@pytest.mark.slow
def test_cells_of_a_sorted_file_train_as_well_as_in_memory(tmp_path):
    """The held-out ELBO is the oracle: the order of the file must not matter."""
    adata = simulate_counts(n_cells=6000, n_genes=60, n_types=4, seed=3)
    adata = adata[np.argsort(adata.obs["cell_type"].to_numpy(), kind="stable")].copy()
    new = simulate_counts(n_cells=6000, n_genes=60, n_types=4, seed=3)[:1500].copy()
    for number, some in enumerate(np.array_split(np.arange(6000), 3)):
        adata[some].copy().write_h5ad(tmp_path / f"{number}.h5ad", compression="gzip")
    lazy = read_lazy(sorted(tmp_path.glob("*.h5ad")))
    elbos = {}
    for name, data in {"memory": adata, "files": lazy}.items():
        BetaVI.setup_anndata(data, batch_key="batch")
        found = []
        for seed in range(3):
            scvi.settings.seed = seed
            model = BetaVI(data, n_latent=5)
            model.train(max_epochs=15, enable_progress_bar=False)
            found.append(float(model.get_elbo(new)))
        elbos[name] = found
    gap = np.mean(elbos["files"]) - np.mean(elbos["memory"])
    assert gap > -max(1.0, np.ptp(elbos["memory"]))


def test_a_joint_model_of_real_cells_trains_from_a_file(tmp_path):
    mdata = pbmc_mosaic()
    mdata.write(tmp_path / "mosaic.h5mu")
    lazy = read_lazy(tmp_path / "mosaic.h5mu")
    for name in mdata.mod:
        assert isinstance(lazy[name].X, StackedRows)
    likelihoods = dict.fromkeys(mdata.mod, "nb")
    JointVI.setup_mudata(lazy, likelihoods=likelihoods)
    model = JointVI(lazy, n_latent=5)
    model.train(**BRIEF)
    JointVI.setup_mudata(mdata, likelihoods=likelihoods)
    here, there = model.get_latent_representation(mdata), model.get_latent_representation()
    order = lazy.obs_names.get_indexer(mdata.obs_names)
    np.testing.assert_allclose(there[order], here, atol=1e-5)
