"""Denoised values that go into files: those of an object, in a whole file or in none."""

from __future__ import annotations

import resource

import anndata
import h5py
import mudata
import numpy as np
import pytest
import torch
from scipy import sparse

from betavi import BetaVI, JointVI
from betavi.datasets import simulate_counts, simulate_multiome
from betavi.model.denoising import estimate
from betavi.model.io import writer
from tests.conftest import mostly_slow, slow_where
from tests.killing import ended, killed_at, number_of_moments

BRIEF = {"max_epochs": 2, "enable_progress_bar": False}
QUIET = {"show_progress": False}
READ = {".zarr": anndata.read_zarr, ".h5ad": anndata.read_h5ad}


def content(path):
    """Every byte under a path."""
    if path.is_file():
        return path.read_bytes()
    return {p.relative_to(path): p.read_bytes() for p in sorted(path.rglob("*")) if p.is_file()}


def dense(values):
    return values.toarray() if sparse.issparse(values) else np.asarray(values)


@pytest.fixture(scope="module")
def trained():
    adata = simulate_counts(n_cells=150, n_genes=30, n_batches=2)
    BetaVI.setup_anndata(adata)
    model = BetaVI(adata, n_latent=4, n_hidden=16)
    model.train(**BRIEF)
    return model


@pytest.fixture
def counts(trained):
    return trained.adata.copy()


@pytest.mark.parametrize("ending", READ)
@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("genes", slow_where([None, [7, 2]], [None]))
def test_a_file_has_what_an_object_has(trained, counts, tmp_path, ending, dtype, genes):
    ask = {"std_layer_added": "std", "library_size": 1e3, "batch_size": 40, "dtype": dtype} | QUIET
    trained.denoise(counts, **ask)
    out = tmp_path / f"x{ending}"
    names = None if genes is None else list(counts.var_names[genes])
    trained.denoise(counts, out=out, gene_list=names, **ask)
    found = READ[ending](out)
    columns = slice(None) if genes is None else genes
    for layer in ("denoised", "std"):
        assert found.layers[layer].dtype == dtype
        expected = counts.layers[layer][:, columns]
        np.testing.assert_allclose(
            found.layers[layer], expected, rtol=1e-3 if dtype == "float16" else 1e-5
        )
    assert (found.obs_names == counts.obs_names).all()
    assert (found.var_names == counts.var_names[columns]).all()
    assert "cell_type" in found.obs
    assert found.uns["betavi"]["denoised"]["denoised"]["library_size"] == 1e3
    assert [path.name for path in tmp_path.iterdir()] == [out.name]


@pytest.mark.parametrize("ending", READ)
def test_x_of_a_file_is_replaced_and_models_find_the_counts(trained, counts, tmp_path, ending):
    out = tmp_path / f"x{ending}"
    latent = trained.get_latent_representation()
    trained.denoise(counts, layer_added=None, out=str(out), batch_size=64, **QUIET)
    trained.denoise(counts, layer_added=None, **QUIET)
    found = READ[ending](out)
    np.testing.assert_allclose(found.X, counts.X, rtol=1e-5)
    assert (found.layers["counts"] != counts.layers["counts"]).nnz == 0
    assert found.uns["betavi"]["counts_moved_to"] == "counts"
    np.testing.assert_allclose(
        trained.get_latent_representation(found), latent, rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("ending", slow_where([None, *READ], {".zarr"}))
def test_small_values_are_dropped_and_their_mass_is_told(trained, counts, tmp_path, ending):
    trained.denoise(counts, std_layer_added="std", **QUIET)
    whole, std = counts.layers["denoised"], counts.layers["std"]
    threshold = float(np.median(whole))
    out = None if ending is None else tmp_path / f"x{ending}"
    ask = {"std_layer_added": "s", "layer_added": "d", "drop_below": threshold, "out": out}
    trained.denoise(counts, batch_size=32, **ask, **QUIET)
    found = counts if ending is None else READ[ending](out)
    for layer, values in (("d", whole), ("s", std)):
        assert sparse.issparse(found.layers[layer])
        expected = np.where(whole >= threshold, values, 0)
        np.testing.assert_allclose(found.layers[layer].toarray(), expected, rtol=1e-5)
    share = found.uns["betavi"]["denoised"]["d"]["dropped_share"]
    assert share == pytest.approx(whole[whole < threshold].sum() / whole.sum(), rel=1e-4)
    assert 0 < share < 0.5


@pytest.mark.parametrize("drop", mostly_slow([None, 0.5], [0.5]))
def test_a_backed_object_is_written_to_its_own_file(trained, counts, tmp_path, drop):
    trained.denoise(counts, std_layer_added="std", drop_below=drop, **QUIET)
    plain = counts.copy()
    plain.layers.clear()
    plain.write_h5ad(tmp_path / "own.h5ad")
    before = content(tmp_path / "own.h5ad")
    backed = anndata.read_h5ad(tmp_path / "own.h5ad", backed="r")
    with pytest.raises(ValueError, match=r"backed='r\+'"):
        trained.denoise(backed, **QUIET)
    with pytest.raises(ValueError, match="file that backs the object"):
        trained.denoise(backed, out=tmp_path / "own.h5ad", **QUIET)
    trained.denoise(backed, out=tmp_path / "other.zarr", **QUIET)
    assert content(tmp_path / "own.h5ad") == before
    backed.file.close()
    backed = anndata.read_h5ad(tmp_path / "own.h5ad", backed="r+")
    with pytest.raises(ValueError, match="backed by a file"):
        trained.denoise(backed, layer_added=None, **QUIET)
    for _ in range(2):
        trained.denoise(backed, std_layer_added="std", drop_below=drop, **QUIET)
        for layer in ("denoised", "std"):
            # what is read of it comes from the file
            assert not isinstance(backed.layers[layer], np.ndarray | sparse.spmatrix)
            some = dense(backed[30:60].layers[layer])
            np.testing.assert_allclose(some, dense(counts.layers[layer])[30:60], rtol=1e-5)
    np.testing.assert_array_equal(dense(backed[:9].X), dense(counts.X)[:9])
    backed.file.close()
    found = anndata.read_h5ad(tmp_path / "own.h5ad")
    np.testing.assert_allclose(
        dense(found.layers["denoised"]), dense(counts.layers["denoised"]), rtol=1e-5
    )
    assert found.uns["betavi"]["denoised"]["denoised"]["estimate"] == "posterior"
    names = list(counts.var_names[:2])
    with pytest.raises(ValueError, match="view of a file"):
        trained.denoise(anndata.read_h5ad(tmp_path / "own.h5ad", backed="r")[:9], **QUIET)
    backed = anndata.read_h5ad(tmp_path / "own.h5ad", backed="r")
    trained.denoise(backed, gene_list=names, layer_added="some", **QUIET)
    assert list(backed.obsm["some"]) == names


def test_a_backed_object_is_the_file_that_is_there_whatever_happens(
    trained, counts, tmp_path, monkeypatch
):
    (tmp_path / "there").mkdir()
    real, link = tmp_path / "there" / "own.h5ad", tmp_path / "link.h5ad"
    counts.write_h5ad(real)
    with h5py.File(tmp_path / "latest.h5ad", "w", libver="latest") as new, h5py.File(real) as old:
        new.attrs.update(old.attrs)
        for name in old:
            old.copy(name, new)
    real.chmod(0o600)
    link.symlink_to(real)
    backed = anndata.read_h5ad(link, backed="r+")
    with monkeypatch.context() as patch:
        patch.setattr(writer, "discard", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            trained.denoise(backed, **QUIET)
    assert link.is_symlink()
    assert real.stat().st_mode & 0o777 == 0o600
    # what is written from here on is in the file
    backed.file["uns"].create_dataset("mine", data=[1, 2])
    sizes = []
    for _ in range(4):
        trained.denoise(backed, **QUIET)
        sizes.append(real.stat().st_size)
    backed.file.close()
    with h5py.File(real) as file:
        assert list(file["uns/mine"]) == [1, 2]
    assert sizes[-1] < sizes[0] + 4096
    trained.denoise(counts, **QUIET)
    for path in (real, tmp_path / "latest.h5ad"):
        backed = anndata.read_h5ad(path, backed="r+")
        trained.denoise(backed, **QUIET)
        backed.file.close()
        found = anndata.read_h5ad(path).layers["denoised"]
        np.testing.assert_allclose(found, counts.layers["denoised"], rtol=1e-5)


@pytest.mark.slow
def test_half_precision_counts_go_along(tmp_path):
    adata = simulate_counts(n_cells=50, n_genes=10)
    adata.X = adata.X.toarray().astype(np.float16)
    BetaVI.setup_anndata(adata)
    model = BetaVI(adata, n_latent=2, n_hidden=8)
    model.train(**BRIEF)
    model.denoise(layer_added=None, out=tmp_path / "x.zarr", **QUIET)
    kept = anndata.read_zarr(tmp_path / "x.zarr").layers["counts"]
    np.testing.assert_array_equal(kept.toarray(), adata.X)


def test_modalities_go_into_one_file(tmp_path):
    mdata = simulate_multiome(n_cells=120, n_batches=2, missing={"adt": 0.5})
    mdata = mdata[np.random.default_rng(0).permutation(mdata.n_obs)].copy()
    JointVI.setup_mudata(mdata, {"rna": "zinb", "adt": "nb_mixture"}, batch_key="batch")
    model = JointVI(mdata, n_latent=4, n_hidden=16)
    model.train(**BRIEF)
    model.denoise(std_layer_added="std", **QUIET)
    for name, read in (("x.zarr", mudata.read_zarr), ("x.h5mu", mudata.read_h5mu)):
        model.denoise(std_layer_added="std", out=tmp_path / name, batch_size=50, **QUIET)
        found = read(tmp_path / name)
        assert (found.obs["batch"] == mdata.obs.loc[found.obs_names, "batch"]).all()
        assert set(found.mod) == {"rna", "adt"}
        for part in found.mod:
            rows = mdata[part].obs_names.get_indexer(found[part].obs_names)
            for layer in ("denoised", "std"):
                expected = mdata[part].layers[layer][rows]
                np.testing.assert_allclose(
                    found[part].layers[layer], expected, rtol=1e-3, atol=1e-6
                )
    model.denoise(layer_added=None, out=tmp_path / "counts.h5mu", **QUIET)
    found = mudata.read_h5mu(tmp_path / "counts.h5mu")
    rows = mdata.obs_names.get_indexer(found.obs_names)
    expected = model.get_latent_representation()[rows]
    np.testing.assert_allclose(
        model.get_latent_representation(found), expected, rtol=1e-3, atol=1e-4
    )
    with pytest.raises(ValueError, match=r"'\.zarr', '\.h5mu'"):
        model.denoise(out=tmp_path / "x.h5ad", **QUIET)


@pytest.mark.parametrize("n_samples", mostly_slow([1, 3], {3}))
def test_a_file_has_the_draws_of_an_object(trained, counts, tmp_path, n_samples):
    ask = {"n_samples": n_samples, "batch_size": 40, "std_layer_added": "s"} | QUIET
    torch.manual_seed(3)
    trained.denoise(counts, **ask)
    torch.manual_seed(3)
    trained.denoise(counts, out=tmp_path / "x.zarr", **ask)
    found = anndata.read_zarr(tmp_path / "x.zarr")
    for layer in ("denoised", "s"):
        np.testing.assert_array_equal(found.layers[layer], counts.layers[layer])


@pytest.fixture(scope="module")
def joint():
    mdata = simulate_multiome(n_cells=100, missing={"adt": 0.5})
    JointVI.setup_mudata(mdata, {"rna": "zinb", "adt": "nb_mixture"})
    model = JointVI(mdata, n_latent=4, n_hidden=16)
    model.train(**BRIEF)
    return model


def call(kind, trained, joint, folder):
    """Return the file of a kind, and a function that denoises into it."""
    path = folder / f"x{kind}"
    if kind != "backed.h5ad":
        model = joint if kind == ".h5mu" else trained
        return path, lambda **ask: model.denoise(out=path, batch_size=50, **ask, **QUIET)
    plain = trained.adata.copy()
    plain.layers.clear()
    plain.uns.clear()
    plain.write_h5ad(path)

    def into_own_file(**ask):
        backed = anndata.read_h5ad(path, backed="r+")
        try:
            trained.denoise(backed, batch_size=50, **ask, **QUIET)
        finally:
            backed.file.close()

    return path, into_own_file


def values(path):
    """Return the records of a file, and the values that they are of."""
    found = mudata.read_h5mu(path)["adt"] if path.suffix == ".h5mu" else None
    found = READ[path.suffix](path) if found is None else found
    return found.uns["betavi"]["denoised"]["denoised"]["estimate"], found.layers["denoised"]


@pytest.mark.parametrize("kind", [".zarr", ".h5ad", ".h5mu", "backed.h5ad"])
def test_an_interrupted_call_leaves_the_old_file(trained, joint, tmp_path, kind, monkeypatch):
    path, denoise = call(kind, trained, joint, tmp_path)
    denoise(estimate="mean")
    old = content(path)
    moments, calls = estimate.moments, []

    def stops(*args):
        calls.append(args)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return moments(*args)

    with monkeypatch.context() as patch:
        patch.setattr(estimate, "moments", stops)
        with pytest.raises(KeyboardInterrupt):
            denoise()
    assert content(path) == old
    assert [path.name for path in tmp_path.iterdir()] == [path.name]
    denoise()
    assert values(path)[0] == "posterior"


@pytest.mark.parametrize("kind", mostly_slow([".zarr", ".h5ad", ".h5mu", "backed.h5ad"], {".h5ad"}))
def test_a_killed_process_leaves_the_old_file_or_the_new_one(trained, joint, tmp_path, kind):
    path, denoise = call(kind, trained, joint, tmp_path)
    expected = {}
    for word in ("posterior", "mean"):
        denoise(estimate=word)
        expected |= dict([values(path)])
    assert set(expected) == {"posterior", "mean"}
    last = number_of_moments(tmp_path, denoise)
    for moment in np.linspace(1, last - 1, 6).astype(int):
        assert killed_at(moment, tmp_path, denoise)
        word, found = values(path)
        np.testing.assert_array_equal(found, expected[word])
        denoise(estimate="mean")
        word, found = values(path)
        np.testing.assert_array_equal(found, expected["mean"])
        assert [path.name for path in tmp_path.iterdir()] == [path.name]


def test_bad_files_are_refused_before_anything_is_computed(trained, counts, tmp_path, monkeypatch):
    monkeypatch.setattr(estimate, "moments", lambda *_: pytest.fail("computed"))
    for out, error, words in [
        ("x.csv", ValueError, "'.zarr', '.h5ad'"),
        ("no/x.zarr", FileNotFoundError, "does not exist"),
    ]:
        with pytest.raises(error, match=words):
            trained.denoise(counts, out=tmp_path / out, **QUIET)
    for kwargs, words in [
        ({"dtype": "float64"}, "'float32', 'float16'"),
        ({"drop_below": 0.0}, "positive"),
        ({"drop_below": -1.0}, "positive"),
        ({"library_size": None}, "positive"),
        ({"batch_size": 0}, "batch_size"),
        ({"layer_added": "a/b", "out": tmp_path / "x.zarr"}, "without slashes"),
        ({"drop_below": 0.1, "dtype": "float16"}, "no sparse float16"),
    ]:
        with pytest.raises(ValueError, match=words):
            trained.denoise(counts, **QUIET | kwargs)
    counts.obs["odd"] = [1, "one"] * (counts.n_obs // 2)
    with pytest.raises(TypeError, match="odd"):
        trained.denoise(counts, out=tmp_path / "x.h5ad", **QUIET)
    assert not list(tmp_path.iterdir())


def test_what_is_not_ours_stays(trained, counts, tmp_path):
    for name in ("x.zarr.old", "x.zarr.new", "x.h5ad.new"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "mine").write_text("mine")
    for name in ("y.zarr", "y.h5ad"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "mine").write_text("mine")
    (tmp_path / "f.zarr").write_text("mine")
    before = content(tmp_path)
    for name in ("y.zarr", "y.h5ad", "f.zarr"):
        with pytest.raises(FileExistsError, match="Rename the file"):
            trained.denoise(counts, out=tmp_path / name, **QUIET)
    assert content(tmp_path) == before
    for name in ("x.zarr", "x.h5ad"):
        trained.denoise(counts, out=tmp_path / name, **QUIET)
    after = content(tmp_path)
    assert {path: after[path] for path in before} == before


def test_a_link_and_a_home_are_followed(trained, counts, tmp_path, monkeypatch):
    (tmp_path / "there").mkdir()
    (tmp_path / "link.h5ad").symlink_to(tmp_path / "there" / "x.h5ad")
    trained.denoise(counts, out=tmp_path / "link.h5ad", **QUIET)
    assert (tmp_path / "link.h5ad").is_symlink()
    assert "denoised" in anndata.read_h5ad(tmp_path / "there" / "x.h5ad").layers
    monkeypatch.setenv("HOME", str(tmp_path / "there"))
    trained.denoise(counts, out="~/y.h5ad", **QUIET)
    assert (tmp_path / "there" / "y.h5ad").exists()


def test_values_beyond_half_precision_are_told(trained, counts):
    with pytest.raises(ValueError, match="too large for float16"):
        trained.denoise(counts, library_size=1e8, dtype="float16", **QUIET)
    assert "denoised" not in counts.layers


def test_a_full_disk_leaves_the_old_file(trained, counts, tmp_path):
    """A limit on the size of files stands in for a full disk, in a process of its own."""
    out = tmp_path / "x.h5ad"
    ask = {"out": out, "batch_size": 2, "std_layer_added": "s"} | QUIET
    trained.denoise(counts, out=out, estimate="mean", **QUIET)
    old = content(out)

    def with_a_limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
        # a RuntimeError in newer versions of h5py
        with pytest.raises((OSError, RuntimeError), match="File too large"):
            trained.denoise(counts, **ask)

    assert ended(with_a_limit) == 0
    assert content(out) == old
    assert [path.name for path in tmp_path.iterdir()] == ["x.h5ad"]
    trained.denoise(counts, **ask)
    assert "s" in anndata.read_h5ad(out).layers
