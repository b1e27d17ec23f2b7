"""Every method answers about cells in files as about the same cells in memory."""

from __future__ import annotations

import mudata
import numpy as np
import pandas as pd
import pytest
import scvi
import torch
import zarr
from scipy import sparse

from betavi import BetaVI, JointVI
from betavi.data import StackedRows, read_lazy
from betavi.datasets import simulate_counts, simulate_multiome
from tests.conftest import BRIEF, mostly_slow

pytestmark = pytest.mark.filterwarnings("ignore")
N_CELLS = 400
QUIET = {"show_progress": False}


def denoised(model, data, folder):
    """Return what ``denoise`` writes to a file."""
    model.denoise(data, out=folder / "out.zarr", **QUIET)
    root = zarr.open_group(folder / "out.zarr", mode="r")
    names = [f"mod/{name}/" for name in data.mod] if "mod" in root else [""]
    return {name: root[f"{name}layers/denoised"][:] for name in names}


def some_genes(model, data, _):
    model.denoise(data, layer_added="two", gene_list=["gene_3", "gene_7"], **QUIET)
    return data.obsm["two"]


ANSWERS = {
    "latent": lambda model, data, _: model.get_latent_representation(data),
    "some latent": lambda model, data, _: model.get_latent_representation(
        data, indices=[300, 2, 9]
    ),
    "elbo": lambda model, data, _: model.get_elbo(data, return_mean=False),
    "likelihood": lambda model, data, _: model.get_marginal_ll(data, 5, return_mean=False),
    "reconstruction": lambda model, data, _: model.get_reconstruction_error(data),
    "dimensions": lambda model, data, _: model.diagnose(data, **QUIET).dimensions,
    "rates": lambda model, data, _: model.rate_distortion([0.5, 1.0], adata=data)[
        ["rate", "distortion"]
    ],
    "support": lambda model, data, _: model.support(data, **QUIET),
    "density": lambda model, _, __: model.latent_density(**QUIET).log_prob(np.zeros((2, 3))),
    "holes": lambda model, _, __: _matrix(model.find_holes(**QUIET)),
    "archetype": lambda model, _, __: _matrix(model.archetype()),
    "generated": lambda model, _, __: _matrix(model.generate(50, seed=0, **QUIET)),
    "denoised": denoised,
}
OF_COUNTS = {
    "expression": lambda model, data, _: model.get_normalized_expression(
        data, transform_batch="batch_1"
    ),
    "parameters": lambda model, data, _: model.get_likelihood_parameters(data)["mean"],
    "draws": lambda model, data, _: model.posterior_predictive_sample(data, n_samples=2).todense(),
    "change": lambda model, data, _: model.differential_expression(
        data, groupby="cell_type", group1="type_0", silent=True
    )[["bayes_factor", "raw_mean1"]].sort_index(),
    "scores": lambda model, data, _: dict(zip("rd", _nats(model.score_counts(data)), strict=True)),
    "labels": lambda model, data, _: model.transfer_labels(data, "cell_type").drop(
        columns="labels"
    ),
    "some genes": some_genes,
    "counts": lambda model, _, __: model.raw_counts([399, 0, 160]),
    "molecules": lambda model, _, __: model.cross_validate_denoising(**QUIET).genes,
    "signals": lambda model, _, __: model.check_false_signals(**QUIET),
}
OF_MODALITIES = {
    "translation": lambda model, data, _: _matrix(model.translate("rna", "adt", data, **QUIET)),
    "predictability": lambda model, _, __: model.predictability("rna", "adt", **QUIET),
    "counts": lambda model, _, __: model.raw_counts([399, 0, 160], modality="adt"),
}


def _nats(score):
    return score.rate, score.distortion


def _matrix(data):
    if isinstance(data, mudata.MuData):
        return np.hstack([_matrix(part) for part in data.mod.values()])
    return data.X.toarray() if sparse.issparse(data.X) else data.X


@pytest.fixture(scope="module")
def single(tmp_path_factory):
    """A model of cells in memory, and the same model of the same cells in two files."""
    folder = tmp_path_factory.mktemp("single")
    adata = simulate_counts(n_cells=N_CELLS, n_genes=25)
    adata[:150].copy().write_zarr(folder / "one.zarr")
    adata[150:].copy().write_h5ad(folder / "two.h5ad")
    BetaVI.setup_anndata(adata, batch_key="batch", labels_key="cell_type")
    scvi.settings.seed = 0
    model = BetaVI(adata, n_latent=3, beta=(0.5, 2.0))
    model.train(max_epochs=5, enable_progress_bar=False)
    model.save(folder / "model")
    lazy = read_lazy([folder / "one.zarr", folder / "two.h5ad"])
    return (model, adata), (BetaVI.load(folder / "model", adata=lazy), lazy)


@pytest.fixture(scope="module")
def joint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("joint")
    mdata = simulate_multiome(n_cells=N_CELLS)
    first, second, *_ = mdata.mod
    mdata = mudata.MuData({second: mdata[second][50:].copy(), first: mdata[first].copy()})
    # mudata sorts the cells by modality
    mdata.write(folder / "cells.h5mu")
    likelihoods = {first: "nb", second: "poisson"}
    JointVI.setup_mudata(mdata, likelihoods=likelihoods)
    scvi.settings.seed = 0
    model = JointVI(mdata, n_latent=3, beta=(0.5, 2.0))
    model.train(max_epochs=5, enable_progress_bar=False)
    model.save(folder / "model")
    lazy = read_lazy(folder / "cells.h5mu")
    return (model, mdata), (JointVI.load(folder / "model", adata=lazy), lazy)


FAST = ("latent", "some latent", "elbo", "denoised", "archetype", "counts", "expression")


@pytest.mark.parametrize("name", mostly_slow([*ANSWERS, *OF_COUNTS], FAST))
def test_an_answer_is_the_same_from_files(single, name, tmp_path):
    check(single, (ANSWERS | OF_COUNTS)[name], tmp_path)


@pytest.mark.parametrize("name", mostly_slow([*ANSWERS, *OF_MODALITIES], FAST))
def test_an_answer_about_several_modalities_is_the_same_from_files(joint, name, tmp_path):
    check(joint, (ANSWERS | OF_MODALITIES)[name], tmp_path)


def check(pairs, answer, folder):
    found = []
    for number, (model, data) in enumerate(pairs):
        scvi.settings.seed = 1
        (folder / str(number)).mkdir()
        found.append(answer(model, data, folder / str(number)))
    same(*found)
    model, lazy = pairs[1]
    parts = lazy.mod.values() if isinstance(lazy, mudata.MuData) else [lazy]
    assert all(isinstance(part.X, StackedRows) for part in parts)


def same(one, other):
    if isinstance(one, pd.DataFrame):
        pd.testing.assert_frame_equal(one, other, rtol=1e-4, atol=1e-5, check_categorical=False)
        return
    if isinstance(one, dict):
        for key in one:
            same(one[key], other[key])
        return
    if isinstance(one, tuple) and hasattr(one, "_asdict"):
        same(one._asdict(), other._asdict())
        return
    one, other = (
        value.toarray() if sparse.issparse(value) else np.asarray(value) for value in (one, other)
    )
    np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def test_a_file_with_counts_is_never_overwritten(single, tmp_path):
    _, (model, lazy) = single
    path = lazy.X.parts[1].path
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"`out` is the file that holds the counts"):
        model.denoise(out=path, **QUIET)
    with pytest.raises(ValueError, match=r"stay in .*out='denoised\.zarr'.*gene_list"):
        model.denoise(**QUIET)
    with pytest.raises(ValueError, match=r"stay in .*one\.zarr.*read_lazy\(paths\)"):
        model.save(tmp_path / "model", save_anndata=True)
    assert not (tmp_path / "model").exists()
    assert path.read_bytes() == before
    assert "denoised" not in lazy.layers


def test_a_minified_object_no_longer_needs_its_files(tmp_path):
    simulate_counts(n_cells=100, n_genes=20).write_h5ad(tmp_path / "cells.h5ad")
    lazy = read_lazy(tmp_path / "cells.h5ad")
    BetaVI.setup_anndata(lazy, batch_key="batch")
    model = BetaVI(lazy, n_latent=3)
    model.train(**BRIEF)
    lazy.obsm["X_latent_qzm"], lazy.obsm["X_latent_qzv"] = model.get_latent_representation(
        return_dist=True
    )
    scvi.settings.seed = 0
    before = model.get_normalized_expression()
    model.minify_adata()
    (tmp_path / "cells.h5ad").unlink()
    scvi.settings.seed = 0
    np.testing.assert_allclose(model.get_normalized_expression(), before, rtol=1e-3)
    assert sparse.issparse(model.adata.X)


def test_a_model_that_infers_library_sizes_loads_without_cells(tmp_path):
    adata = simulate_counts(n_cells=100, n_genes=20)
    BetaVI.setup_anndata(adata, batch_key="batch")
    model = BetaVI(adata, use_observed_lib_size=False)
    model.train(**BRIEF)
    model.save(tmp_path / "model")
    loaded = BetaVI.load(tmp_path / "model", adata=False)
    for one, other in zip(
        model.module.state_dict().values(), loaded.module.state_dict().values(), strict=True
    ):
        assert torch.equal(one.nan_to_num(-1), other.nan_to_num(-1))


@pytest.fixture
def reads(monkeypatch):
    """Numbers of rows of each read from a file, with small blocks."""
    monkeypatch.setattr("betavi._blocks.FILE_ENTRIES", 2000)
    monkeypatch.setattr("betavi._blocks.DENSE_CELLS", 200)
    monkeypatch.setattr("betavi._blocks.READ_ROWS", 200)
    monkeypatch.setattr("betavi.data.start_values.SAMPLED_CELLS", 100)
    monkeypatch.setattr("betavi.data.file_loader.BLOCKS_AT_ONCE", 2)
    found, read = [], StackedRows._read
    monkeypatch.setattr(
        StackedRows, "_read", lambda self, a, b: found.append(b - a) or read(self, a, b)
    )
    return found


def test_no_step_reads_all_cells_at_once(tmp_path, reads):
    """Memory stays flat if the number of cells grows, because every read is of some cells."""
    adata = simulate_counts(n_cells=3000, n_genes=20)
    paths = []
    for number, some in enumerate(np.array_split(np.arange(3000), 3)):
        paths.append(tmp_path / f"{number}.h5ad")
        adata[some].copy().write_h5ad(paths[-1])
    lazy = read_lazy(paths)
    BetaVI.setup_anndata(lazy, batch_key="batch")
    model = BetaVI(lazy, n_latent=3)
    steps = {
        "setup": lambda: None,
        "train": lambda: model.train(**BRIEF),
        "latent": model.get_latent_representation,
        "denoise": lambda: model.denoise(out=tmp_path / "out.zarr", **QUIET),
        "diagnose": lambda: model.diagnose(**QUIET),
        "support": lambda: model.support(**QUIET),
        "generate": lambda: model.generate(50, **QUIET),
        "rates": lambda: model.rate_distortion(),
    }
    for name, step in steps.items():
        step()
        assert reads, name
        assert max(reads) <= 512, (name, max(reads))
        reads.clear()
        reads.append(0)
