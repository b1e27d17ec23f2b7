"""Objects whose counts stay in files: read as written, refused if files do not fit, never in memory."""

from __future__ import annotations

import gc
import pickle
import shutil
from functools import lru_cache

import anndata
import h5py
import mudata
import numpy as np
import pandas as pd
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from betavi import _blocks
from betavi.data import MOVED_COUNTS, Rows, StackedRows, counts_layer, files_of, read_lazy
from betavi.data.stored import _handle, read_runs
from betavi.datasets import simulate_counts, simulate_multiome


def written(adata, path, kind):
    """Write an object in one of four ways, and return the path."""
    if kind.startswith("dense"):
        adata = adata.copy()
        adata.X = adata.X.toarray()
    path = path.with_suffix(".zarr" if kind.endswith("zarr") else ".h5ad")
    if path.suffix == ".zarr":
        adata.write_zarr(path)
    else:
        adata.write_h5ad(path, compression="gzip" if "gzip" in kind else None)
    return path


KINDS = ("h5ad", "gzip h5ad", "zarr", "dense h5ad", "dense zarr")


@pytest.fixture
def adata():
    adata = simulate_counts(n_cells=120, n_genes=15)
    adata.layers["raw"] = adata.X * 2
    return adata


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n_files", [1, 3])
def test_every_file_is_read_as_it_was_written(adata, tmp_path, monkeypatch, kind, n_files):
    parts = np.array_split(np.arange(adata.n_obs), n_files)
    paths = [
        written(adata[some].copy(), tmp_path / f"part{number}", kind)
        for number, some in enumerate(parts)
    ]
    lazy = read_lazy(paths[0] if n_files == 1 else paths)
    pd.testing.assert_frame_equal(lazy.obs, adata.obs, check_categorical=n_files == 1)
    pd.testing.assert_frame_equal(lazy.var, adata.var)
    assert isinstance(lazy.X, StackedRows)
    assert lazy.X.dtype == adata.X.dtype
    np.testing.assert_array_equal(lazy.X.to_memory().toarray(), adata.X.toarray())
    monkeypatch.setattr(_blocks, "FILE_ENTRIES", 100)
    for axis in (None, 0, 1, -1):
        np.testing.assert_array_equal(lazy.X.sum(axis), adata.X.toarray().sum(axis))
    np.testing.assert_array_equal(lazy.layers["raw"][:].toarray(), adata.layers["raw"].toarray())
    assert files_of(lazy) == [path.absolute() for path in paths]
    assert lazy.obs["cell_type"].dtype == "category"


INDEX = st.one_of(
    st.slices(30),
    st.lists(st.integers(-30, 29), max_size=8).map(lambda cells: np.array(cells, dtype=int)),
    st.lists(st.booleans(), min_size=30, max_size=30).map(np.array),
    st.integers(0, 29).map(lambda cell: np.array([cell])),
)


@pytest.fixture(scope="module")
def three_files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("three")
    adata = simulate_counts(n_cells=30, n_genes=7)
    kinds = ("h5ad", "dense zarr", "zarr")
    parts = [slice(0, 4), slice(4, 5), slice(5, 30)]
    paths = [
        written(adata[some].copy(), folder / f"part{i}", kind)
        for i, (some, kind) in enumerate(zip(parts, kinds, strict=True))
    ]
    return read_lazy(paths).X, adata.X.toarray()


@settings(max_examples=150, deadline=None, derandomize=True, database=None)
@given(
    rows=INDEX, columns=st.one_of(st.just(slice(None)), st.just(slice(1, 6, 2)), st.just([3, 0]))
)
def test_any_index_returns_what_numpy_returns(three_files, rows, columns):
    lazy, dense = three_files
    np.testing.assert_array_equal(lazy[rows, columns].toarray(), dense[rows][:, columns])
    np.testing.assert_array_equal(lazy[rows].toarray(), dense[rows])


@pytest.fixture(scope="module")
def monkeypatch_module():
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@settings(max_examples=100, deadline=None, derandomize=True, database=None)
@given(cells=st.sets(st.integers(0, 199), max_size=60))
def test_runs_are_the_rows(monkeypatch_module, cells):
    monkeypatch_module.setattr(_blocks, "READ_ROWS", 64)
    matrix = np.arange(400).reshape(200, 2)
    chosen = np.array(sorted(cells), dtype=int)
    np.testing.assert_array_equal(read_runs(matrix, chosen), matrix[chosen])


def test_a_view_and_a_copy_of_a_view_are_in_memory(adata, tmp_path):
    lazy = read_lazy(written(adata, tmp_path / "cells", "h5ad"))
    some = lazy[lazy.obs["batch"] == "batch_1"].copy()
    assert sparse.issparse(some.X)
    expected = adata[adata.obs["batch"] == "batch_1"].X.toarray()
    np.testing.assert_array_equal(some.X.toarray(), expected)
    assert isinstance(lazy.copy().X, StackedRows)
    assert files_of(some) == files_of(adata) == []


def test_another_process_opens_the_file_again(adata, tmp_path):
    lazy = read_lazy(written(adata, tmp_path / "cells", "h5ad"))
    again = pickle.loads(pickle.dumps(lazy.X))
    np.testing.assert_array_equal(again[[3, 100]].toarray(), adata.X[[3, 100]].toarray())
    backed = anndata.read_h5ad(tmp_path / "cells.h5ad", backed="r")
    with pytest.raises(TypeError, match="read_lazy"):
        pickle.dumps(Rows(backed.X))


def test_names_that_repeat_get_the_number_of_their_file(adata, tmp_path):
    path = written(adata, tmp_path / "cells", "h5ad")
    lazy = read_lazy([path, path])
    assert lazy.obs_names.is_unique
    assert lazy.obs_names[[0, 120]].tolist() == ["cell_0-0", "cell_0-1"]


def test_chosen_columns_only(adata, tmp_path):
    path = written(adata, tmp_path / "cells", "zarr")
    assert list(read_lazy(path, columns=["batch"]).obs) == ["batch"]
    with pytest.raises(KeyError, match=r"cells\.zarr has no column 'bach' in obs.*batch"):
        read_lazy(path, columns=["bach"])


def test_files_that_do_not_fit_are_refused(adata, tmp_path):
    first = written(adata, tmp_path / "first", "h5ad")
    other = written(adata[:, ::-1].copy(), tmp_path / "reversed", "h5ad")
    with pytest.raises(ValueError, match=r"reversed.*first.*order of the genes"):
        read_lazy([first, other])
    other = written(adata[:, :-2].copy(), tmp_path / "fewer", "h5ad")
    with pytest.raises(ValueError, match=r"2 gene\(s\) are in one file only, e\.g\. 'gene_13'"):
        read_lazy([first, other])
    other = adata.copy()
    del other.layers["raw"]
    with pytest.raises(ValueError, match=r"bare.* has no layers/raw, but .*first"):
        read_lazy([first, written(other, tmp_path / "bare", "h5ad")])
    with pytest.raises(FileNotFoundError, match="missing"):
        read_lazy(tmp_path / "missing.h5ad")
    with pytest.raises(ValueError, match="`paths` is empty"):
        read_lazy([])
    other = adata.copy()
    other.X = other.X.tocsc()
    with pytest.raises(ValueError, match=r"columns.*X is stored as csc_matrix.*tocsr"):
        read_lazy(written(other, tmp_path / "columns", "h5ad"))


def test_what_is_no_object_is_refused(tmp_path):
    path = tmp_path / "other.h5ad"
    with h5py.File(path, "w") as file:
        file["x"] = [1, 2]
    with pytest.raises(ValueError, match=r"other\.h5ad holds no AnnData and no MuData"):
        read_lazy(path)
    zarr.open_group(tmp_path / "other.zarr", mode="w")
    with pytest.raises(ValueError, match=r"other\.zarr holds no AnnData and no MuData"):
        read_lazy(tmp_path / "other.zarr")
    (tmp_path / "text.h5ad").write_text("no file of HDF5")
    with pytest.raises(ValueError, match=r"text\.h5ad cannot be read"):
        read_lazy(tmp_path / "text.h5ad")


@pytest.mark.parametrize("kind", ["h5mu", "zarr"])
def test_a_mudata_keeps_order_modalities_and_missing_cells(tmp_path, kind):
    mdata = simulate_multiome(n_cells=80)
    first, second, *_ = mdata.mod
    parts = {second: mdata[second][10:].copy(), first: mdata[first].copy()}
    whole = mudata.MuData(parts)
    whole.obs["donor"] = pd.Categorical(np.arange(whole.n_obs) % 3)
    path = tmp_path / f"cells.{kind}"
    whole.write_zarr(path) if kind == "zarr" else whole.write(path)
    lazy = read_lazy(path)
    assert list(lazy.mod) == [second, first]
    assert lazy.n_obs == whole.n_obs
    for name in lazy.mod:
        assert isinstance(lazy[name].X, StackedRows)
        np.testing.assert_array_equal(lazy[name].X[:].toarray(), _dense(whole[name].X))
        assert list(lazy[name].obs) == list(whole[name].obs)
    donors = whole.obs["donor"].reindex(lazy.obs_names)
    assert (lazy.obs["donor"].astype(str) == donors.astype(str)).all()
    with pytest.raises(ValueError, match=r"holds one MuData, but .* holds one AnnData"):
        read_lazy([path, written(simulate_counts(20, 5), tmp_path / "one", "h5ad")])


def test_several_mudata_may_lack_a_modality(tmp_path):
    mdata = simulate_multiome(n_cells=60)
    first, second, *_ = mdata.mod
    mudata.MuData({n: mdata[n][:40].copy() for n in (first, second)}).write(tmp_path / "both.h5mu")
    mudata.MuData({first: mdata[first][40:].copy()}).write(tmp_path / "one.h5mu")
    lazy = read_lazy([tmp_path / "both.h5mu", tmp_path / "one.h5mu"])
    assert lazy.n_obs == 60
    assert lazy[first].n_obs == 60
    assert lazy[second].n_obs == 40
    np.testing.assert_array_equal(lazy[first].X[:].toarray(), _dense(mdata[first].X))


def _dense(matrix):
    return matrix.toarray() if sparse.issparse(matrix) else matrix


def test_a_file_that_changed_or_is_gone_is_refused(adata, tmp_path):
    for kind in ("h5ad", "zarr"):
        path = written(adata, tmp_path / "cells", kind)
        lazy = read_lazy(path)
        lazy.X[[1, 2]]
        copy = pickle.dumps(lazy.X)
        other = written(adata[::-1].copy(), tmp_path / "other", kind)
        if kind == "zarr":
            shutil.rmtree(path)
        other.replace(path)
        for matrix in (lazy.X, pickle.loads(copy)):
            with pytest.raises(ValueError, match=r"cells\.\w+ changed after read_lazy"):
                matrix[0:1]
        shutil.rmtree(path) if kind == "zarr" else path.unlink()
        with pytest.raises(
            FileNotFoundError, match=r"cells\.\w+ does not exist.*Put the file back"
        ):
            lazy.X[0:1]


def test_more_files_than_may_be_open(adata, tmp_path, monkeypatch):
    monkeypatch.setattr("betavi.data.stored._handle", lru_cache(2)(_handle.__wrapped__))
    for number in range(6):
        adata[number * 20 : number * 20 + 20].copy().write_h5ad(tmp_path / f"{number}.h5ad")
    before = h5py.h5f.get_obj_count(h5py.h5f.OBJ_ALL, h5py.h5f.OBJ_FILE)
    lazy = read_lazy(sorted(tmp_path.glob("*.h5ad")))
    np.testing.assert_array_equal(lazy.X[:].toarray(), adata.X.toarray())
    gc.collect()
    assert h5py.h5f.get_obj_count(h5py.h5f.OBJ_ALL, h5py.h5f.OBJ_FILE) - before <= 3


def test_categories_of_old_files_stay_categories(adata, tmp_path):
    """anndata 0.7 stored the codes in the column, and the categories beside all columns."""
    for name, types in {"one": ["a", "b"], "two": ["c", "d"]}.items():
        adata.obs["batch"] = pd.Categorical.from_codes(np.arange(120) % 2, types)
        path = written(adata, tmp_path / name, "h5ad")
        with h5py.File(path, "r+") as file:
            obs = file["obs"]
            obs.attrs["encoding-version"] = "0.1.0"
            for column in ("batch", "cell_type"):
                stored = obs[column]
                codes, categories = stored["codes"][:], stored["categories"][:]
                del obs[column]
                obs.create_dataset(column, data=codes)
                held = obs.require_group("__categories").create_dataset(column, data=categories)
                held.attrs["ordered"] = False
                obs[column].attrs["categories"] = held.ref
        assert anndata.read_h5ad(path).obs["batch"].tolist()[:2] == types
    lazy = read_lazy([tmp_path / "one.h5ad", tmp_path / "two.h5ad"])
    assert sorted(lazy.obs["batch"].unique()) == ["a", "b", "c", "d"]
    assert lazy.obs["cell_type"].tolist() == 2 * adata.obs["cell_type"].tolist()
    some = read_lazy(tmp_path / "one.h5ad", columns=["batch"])
    assert some.obs["batch"].tolist()[:3] == ["a", "b", "a"]


def test_what_the_object_says_of_its_counts_is_kept(adata, tmp_path):
    """After ``denoise``, the counts are in a layer; a minified object has none."""
    adata.layers["counts"] = adata.X.copy()
    adata.uns["betavi"] = {MOVED_COUNTS: "counts"}
    path = written(adata, tmp_path / "denoised", "h5ad")
    assert counts_layer(read_lazy(path), None) == "counts"
    del adata.uns["betavi"]
    other = written(adata, tmp_path / "plain", "h5ad")
    with pytest.raises(
        ValueError, match=r"denoise\(\) moved the counts.*counts of .*X of .*plain\.h5ad"
    ):
        read_lazy([path, other])
    adata.uns["_scvi_adata_minify_type"] = "latent_posterior_parameters"
    with pytest.raises(ValueError, match=r"is minified.*anndata\.read_h5ad"):
        read_lazy(written(adata, tmp_path / "minified", "zarr"))


def test_columns_of_files_may_differ_in_their_categories(adata, tmp_path):
    paths = []
    for number, values in enumerate((["x", "y"], [1, 2])):
        adata.obs["batch"] = pd.Categorical.from_codes(np.arange(120) % 2, values)
        adata.obs["grade"] = pd.Categorical.from_codes(np.arange(120) % 2, values, ordered=True)
        paths.append(written(adata, tmp_path / f"file{number}", "h5ad"))
    lazy = read_lazy(paths)
    assert set(map(str, lazy.obs["batch"])) == set(map(str, lazy.obs["grade"])) == set("xy12")
    with pytest.raises(TypeError, match=r"`columns` must be a list of names, such as \['batch'\]"):
        read_lazy(paths, columns="batch")


def test_half_precision_becomes_single_precision(adata, tmp_path):
    adata.X = adata.X.toarray().astype(np.float16)
    adata.write_h5ad(tmp_path / "half.h5ad")
    lazy = read_lazy(tmp_path / "half.h5ad")
    assert lazy.X.dtype == lazy.X[:].dtype == np.float32
    np.testing.assert_array_equal(lazy.X[:].toarray(), adata.X)


def test_columns_of_one_modality_can_be_chosen(tmp_path):
    mdata = simulate_multiome(n_cells=40)
    name = next(iter(mdata.mod))
    mdata[name].obs["depth"] = np.arange(40)
    mdata.write(tmp_path / "cells.h5mu")
    lazy = read_lazy(tmp_path / "cells.h5mu", columns=["depth"])
    assert lazy[name].obs["depth"].tolist() == list(range(40))
    with pytest.raises(KeyError, match="no column 'weight'"):
        read_lazy(tmp_path / "cells.h5mu", columns=["weight"])
