"""Files are whole, old or new, whatever kills the processes that write them."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from contextlib import suppress

import anndata
import h5py
import mudata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from betavi.model.io import replace
from betavi.model.io.writer import CellChunk, changed_file, collect, new_file
from tests.conftest import mostly_slow, slow_where
from tests.killing import ended, killed_at, number_of_moments

N_CELLS, N_GENES, AT_ONCE = 24, 7, 10
KINDS = (".zarr", ".h5ad", ".h5mu", "mudata.zarr", "backed.h5ad")
STEPS = ("layers/dense", "layers/sparse")


@pytest.fixture(params=["swap", "renames"])
def way(request, monkeypatch):
    """How a folder replaces another: in one step, or where a system cannot do that."""
    if request.param == "renames":
        monkeypatch.setattr(replace, "_swap", lambda *_: False)
    return request.param


def template(kind, label):
    obs = pd.DataFrame({"label": [label] * N_CELLS}, index=[f"c{i}" for i in range(N_CELLS)])
    var = pd.DataFrame(index=[f"g{i}" for i in range(N_GENES)])
    part = anndata.AnnData(obs=obs, var=var, uns={"betavi": {}, "label": label})
    return mudata.MuData({"rna": part}) if kind in (".h5mu", "mudata.zarr") else part


def write(target, label, fails_at=None):
    """Write a file all of whose values are a number."""
    kind = target.name.removeprefix("x")
    prefix = "mod/rna/" if kind in (".h5mu", "mudata.zarr") else ""
    if kind == "backed.h5ad" and target.exists():
        backed = anndata.read_h5ad(target, backed="r+")
        backed.uns["label"] = label
        writer = changed_file(backed, STEPS)
    else:
        writer = new_file(template(kind, label), target, replaces=True)
    with writer:
        for start in range(0, N_CELLS, AT_ONCE):
            rows = np.full((min(AT_ONCE, N_CELLS - start), N_GENES), label, dtype=np.float32)
            writer.append(f"{prefix}layers/dense", rows)
            writer.append(f"{prefix}layers/sparse", sparse.csr_matrix(rows))
            if start == fails_at:
                raise KeyboardInterrupt
        writer.add_record(prefix, {"denoised": {"label": label}})


def label_of(target):
    """Return the number that a whole file is of."""
    if target.suffix == ".h5mu" or target.name.startswith("xmudata"):
        found = (mudata.read_zarr if target.suffix == ".zarr" else mudata.read_h5mu)(target)["rna"]
    else:
        found = (anndata.read_zarr if target.suffix == ".zarr" else anndata.read_h5ad)(target)
    assert set(found.layers) - {None} == {"dense", "sparse"}
    dense, some = found.layers["dense"], found.layers["sparse"]
    assert dense.shape == some.shape == (N_CELLS, N_GENES)
    label = found.uns["betavi"]["denoised"]["label"]
    assert (dense == label).all()
    assert (some.toarray() == label).all()
    if not target.name.startswith("xbacked"):
        assert (found.obs["label"] == label).all()
        assert found.uns["label"] == label
    return label


def names(folder):
    return [path.name for path in folder.iterdir()]


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_is_written_and_replaced(tmp_path, kind, way):
    target = tmp_path / f"x{kind}"
    for label in (1.0, 2.0):
        write(target, label)
        assert label_of(target) == label
        assert names(tmp_path) == [target.name]
    if target.suffix != ".zarr":
        target.chmod(0o600)
        write(target, 3.0)
        assert target.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("kind", slow_where(KINDS, {"mudata.zarr"}))
def test_an_interrupted_call_leaves_the_old_file_alone(tmp_path, kind):
    target = tmp_path / f"x{kind}"
    with pytest.raises(KeyboardInterrupt):
        write(target, 1.0, fails_at=AT_ONCE)
    assert names(tmp_path) == []
    write(target, 1.0)
    with pytest.raises(KeyboardInterrupt):
        write(target, 2.0, fails_at=AT_ONCE)
    assert label_of(target) == 1.0
    assert names(tmp_path) == [target.name]


def check_killed(target, moments, way):
    """Kill a process that replaces a file at some moments, and write the file after each."""
    folder, old = target.parent, 1.0
    write(target, old)
    for moment in moments:
        if not killed_at(moment, folder, lambda old=old: write(target, old + 1)):
            old = label_of(target)
            continue
        if way == "renames" and not target.exists():
            # killed between the two: a call that fails puts the old one back
            with suppress(KeyboardInterrupt):
                write(target, old + 9, fails_at=0)
            assert label_of(target) == old
        assert label_of(target) in (old, old + 1)
        old += 2
        write(target, old)
        assert label_of(target) == old
        assert names(folder) == [target.name]


@pytest.mark.parametrize("kind", slow_where(KINDS, {".zarr", "mudata.zarr"}))
def test_a_killed_process_leaves_the_old_file_or_the_new_one(tmp_path, kind):
    """The last moments are those of the records and of the renames."""
    target = tmp_path / f"x{kind}"
    write(target, 1.0)
    last = number_of_moments(tmp_path, lambda: write(target, 1.0))
    check_killed(target, [last // 2, last - 30, last - 8, last - 2], "swap")


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_at_many_moments(tmp_path, kind, way):
    target = tmp_path / f"x{kind}"
    write(target, 1.0)
    last = number_of_moments(tmp_path, lambda: write(target, 1.0))
    # The two ways differ in the last moments alone, which write records and rename, and each way
    # takes every second of the moments. Folders take seconds for each.
    other = way == "swap"
    spread = range(1, last, last // (6 if target.suffix == ".zarr" else 12))[other::2]
    tail = range(last - 12, last + 1, 2 if kind == "mudata.zarr" else 1)[other::2]
    check_killed(target, [*spread, *tail], way)


def test_a_process_that_is_killed_between_two_renames(tmp_path, monkeypatch):
    target = tmp_path / "x.zarr"
    write(target, 1.0)
    monkeypatch.setattr(replace, "_swap", lambda *_: False)
    rename = type(target).rename

    def killed(path, to):
        if "betavi-new" in path.name:
            os.kill(os.getpid(), 9)
        return rename(path, to)

    monkeypatch.setattr(type(target), "rename", killed)
    assert ended(lambda: write(target, 2.0)) == -9
    monkeypatch.undo()
    assert not target.exists()
    assert len(names(tmp_path)) == 2
    # what is refused puts it back too
    with pytest.raises(FileExistsError, match="Remove the file"):
        new_file(template(".zarr", 3.0), target)
    assert label_of(target) == 1.0
    assert names(tmp_path) == ["x.zarr"]


@pytest.mark.parametrize("n_times", mostly_slow([3, 10], {3}))
@pytest.mark.parametrize("kind", slow_where([".zarr", ".h5ad", ".h5mu"], {".zarr"}))
def test_processes_that_write_the_same_file_do_not_mix(tmp_path, kind, way, n_times):
    target = tmp_path / f"x{kind}"
    context = multiprocessing.get_context("fork")

    def often(label):
        for _ in range(n_times):
            write(target, label)

    processes = [context.Process(target=often, args=(label,)) for label in (1.0, 2.0, 3.0)]
    for process in processes:
        process.start()
    while any(process.is_alive() for process in processes):
        if kind != ".zarr" and target.exists():
            assert label_of(target) in (1.0, 2.0, 3.0)
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert label_of(target) in (1.0, 2.0, 3.0)
    assert names(tmp_path) == [target.name]


def test_only_what_a_process_of_this_machine_left_that_is_gone_is_removed(tmp_path):
    target = tmp_path / "x.zarr"
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    stays = [
        f".x.zarr.betavi-new-{os.getppid()}-aa-{replace.HOST}.zarr",
        f".x.zarr.betavi-old-{os.getppid()}-aa-{replace.HOST}.zarr",
        f".x.zarr.betavi-new-{gone.pid}-aa-0f0f0f0f.zarr",
        f".y.zarr.betavi-new-{gone.pid}-aa-{replace.HOST}.zarr",
        ".x.zarr.betavi-new-mine",
        "x.zarr.betavi-new-mine",
    ]
    goes = [f".x.zarr.betavi-{kind}-{gone.pid}-aa-{replace.HOST}.zarr" for kind in ("new", "gone")]
    for name in stays + goes:
        (tmp_path / name).mkdir()
        (tmp_path / name / "mine").write_text("mine")
    write(target, 1.0)
    assert set(names(tmp_path)) == {*stays, "x.zarr"}


@pytest.mark.parametrize("kind", [".zarr", ".h5ad"])
def test_what_an_interrupted_removal_left_is_removed_by_the_next_call(tmp_path, kind, monkeypatch):
    target = tmp_path / f"x{kind}"

    def interrupted(_):
        raise KeyboardInterrupt

    for label in (1.0, 2.0):
        with monkeypatch.context() as patch:
            patch.setattr(replace, "remove", interrupted)
            with pytest.raises(KeyboardInterrupt):
                write(target, label)
        assert label_of(target) == label
    write(target, 3.0)
    assert names(tmp_path) == [target.name]


def test_cells_are_collected_in_memory_and_in_files(tmp_path):
    rng = np.random.default_rng(0)
    empty = {
        name: anndata.AnnData(
            sparse.csr_matrix((0, 5), dtype=np.float32),
            var=pd.DataFrame(index=[f"{name}{i}" for i in range(5)]),
            layers={"raw": sparse.csr_matrix((0, 5), dtype=np.float32)} if name == "rna" else {},
        )
        for name in ("rna", "adt")
    }
    empty = mudata.MuData(empty)
    empty.uns["betavi"] = {"generated": {"source": "prior"}}
    chunks = [
        CellChunk(
            {
                name: sparse.csr_matrix(rng.poisson(1.0, (n, 5)).astype(np.float32))
                for name in empty.mod
            },
            pd.DataFrame({"near_cell": [f"c{i}" for i in range(n)]}),
            rng.normal(size=(n, 2)),
        )
        for n in (6, 4)
    ]
    here = collect(empty, chunks, None)
    assert here.n_obs == 10
    for name, read in (("x.zarr", mudata.read_zarr), ("x.h5mu", mudata.read_h5mu)):
        assert collect(empty, chunks, new_file(empty, tmp_path / name)) is None
        found = read(tmp_path / name)
        assert found.obs_names.equals(here.obs_names)
        assert found.obs["near_cell"].tolist() == here.obs["near_cell"].tolist()
        np.testing.assert_array_equal(found.obsm["z"], here.obsm["z"])
        assert found.uns["betavi"]["generated"]["source"] == "prior"
        for part in ("rna", "adt"):
            assert (found[part].X != here[part].X).nnz == 0
            assert found[part].obs_names.equals(here.obs_names)
        assert (found["rna"].layers["raw"] != here["rna"].X).nnz == 0
    with h5py.File(tmp_path / "x.h5mu") as file:
        # there may come more entries than 32 bits count
        assert file["mod/rna/X/indptr"].dtype == np.int64
