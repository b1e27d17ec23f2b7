"""Cells that are generated: from where they should be, of the size asked for, and like real ones."""

from __future__ import annotations

import anndata
import h5py
import mudata
import numpy as np
import pandas as pd
import pytest
import scvi
import torch
from scipy import sparse, stats

from betavi import BetaVI, JointVI
from betavi.datasets import simulate_counts, simulate_multiome
from betavi.likelihoods import LIKELIHOODS
from betavi.metrics import realism
from betavi.model.generation.generate import _draw_counts
from betavi.model.generation.sources import SOURCES
from tests.conftest import BRIEF

QUIET = {"show_progress": False}


@pytest.fixture(scope="module")
def trained():
    """A model that has learned cells of four types in two batches."""
    scvi.settings.seed = 0
    torch.set_num_threads(1)
    adata = simulate_counts(n_cells=1200, n_genes=60, n_types=4, n_batches=2, seed=3)
    BetaVI.setup_anndata(adata, batch_key="batch", labels_key="cell_type")
    model = BetaVI(adata, n_latent=5)
    model.train(60, enable_progress_bar=False)
    return model


@pytest.mark.slow
def test_latents_of_the_prior_are_the_priors(trained):
    z = trained.generate(4000, seed=0, **QUIET).obsm["z"]
    assert z.shape == (4000, 5)
    for dimension in z.T:
        assert stats.kstest(dimension, "norm").pvalue > 1e-3
    assert np.abs(np.corrcoef(z.T) - np.eye(5)).max() < 0.08


@pytest.mark.parametrize("prior", ["vamp", "mixture"])
def test_latents_of_another_prior_are_that_priors(prior):
    adata = simulate_counts(n_cells=300, n_genes=30, seed=0)
    BetaVI.setup_anndata(adata)
    model = BetaVI(adata, n_latent=2, prior=prior)
    model.train(**BRIEF)
    z = model.generate(3000, seed=0, **QUIET).obsm["z"]
    with torch.inference_mode():
        expected = model.module.current_prior().sample((3000,)).numpy()
    for one, other in zip(z.T, expected.T, strict=True):
        assert stats.ks_2samp(one, other).pvalue > 1e-3


def test_latents_of_the_aggregate_are_where_cells_are_and_not_the_cells(trained):
    z = trained.generate(3000, source="aggregate", seed=0, **QUIET).obsm["z"]
    mean, variance = trained.get_latent_representation(return_dist=True)
    rng = np.random.default_rng(0)
    draws = (mean + np.sqrt(variance) * rng.normal(size=(3, *mean.shape))).reshape(-1, 5)
    for one, other in zip(z.T, draws.T, strict=True):
        assert stats.ks_2samp(one, other).statistic < 0.06
    # the prior is not there
    from betavi.metrics import energy_distance

    some, prior = rng.permutation(draws)[:1000], rng.normal(size=(1000, 5))
    assert energy_distance(z[:1000], some) < 0.2 * energy_distance(prior, some)


def test_around_cells_are_their_posteriors(trained):
    name = trained.adata.obs_names[7]
    new = trained.generate(2000, source="cells", cells=name, seed=0, **QUIET)
    mean, variance = trained.get_latent_representation(indices=[7], return_dist=True)
    z = (new.obsm["z"] - mean) / np.sqrt(variance)
    for dimension in z.T:
        assert stats.kstest(dimension, "norm").pvalue > 1e-3
    assert set(new.obs["near_cell"]) == {name}
    assert set(new.obs["cell_type"]) == {trained.adata.obs["cell_type"].iloc[7]}
    # two cells take turns
    both = trained.generate(10, source="cells", cells=[7, 8], **QUIET)
    assert both.obs["near_cell"].value_counts().tolist() == [5, 5]


@pytest.mark.parametrize("gene_likelihood", LIKELIHOODS)
def test_totals_are_those_asked_for(gene_likelihood):
    adata = simulate_counts(n_cells=400, n_genes=50, seed=0)
    if gene_likelihood == "bernoulli":
        adata.X = (adata.X > 0).astype(np.float32)
    BetaVI.setup_anndata(adata)
    model = BetaVI(adata, n_latent=3, gene_likelihood=gene_likelihood)
    model.train(**BRIEF | {"max_epochs": 10})
    if not LIKELIHOODS[gene_likelihood].reads_size:
        with pytest.raises(ValueError, match="cannot set the total of"):
            model.generate(10, library_size=100, **QUIET)
        assert model.generate(10, **QUIET).n_obs == 10
        return
    for size in (300.0, 3000.0):
        new = model.generate(2000, library_size=size, source="aggregate", seed=0, **QUIET)
        totals = np.asarray(new.X.sum(axis=1)).ravel()
        error = totals.std() / np.sqrt(len(totals))
        # a log-normal that is cut off at zero counts a little more
        if gene_likelihood == "normal":
            # what it draws below zero is cut off
            assert totals.mean() > size
        elif gene_likelihood != "bernoulli":
            slack = 0.1 if gene_likelihood == "lognormal" else 0.01
            assert totals.mean() == pytest.approx(size, abs=4 * error + slack * size)
        assert new.X.data.min() > 0


@pytest.mark.parametrize("source", ["prior", "cells"])
def test_each_cell_has_the_total_that_was_asked_for_it(trained, source):
    # more cells than are generated at once
    sizes = np.tile([300.0, 3000.0], 600)
    new = trained.generate(1200, source=source, library_size=sizes, seed=0, **QUIET)
    totals = np.asarray(new.X.sum(axis=1)).ravel()
    for size in (300.0, 3000.0):
        mine = totals[sizes == size]
        assert mine.mean() == pytest.approx(size, rel=0.03)
        # counts vary around their total; it does not
        assert mine.std() < 0.5 * size


def test_totals_are_like_those_of_cells_that_are_near(trained):
    new = trained.generate(2400, source="aggregate", seed=0, **QUIET)
    real = np.asarray(trained.adata.X.sum(axis=1)).ravel()
    mine = np.asarray(new.X.sum(axis=1)).ravel()
    assert np.median(mine) == pytest.approx(np.median(real), rel=0.1)
    assert np.log(mine).std() == pytest.approx(np.log(real).std(), rel=0.25)
    for name, adata in (("batch_0", new[new.obs["batch"] == "batch_0"]),):
        lenders = trained.adata.obs.loc[adata.obs["near_cell"], "batch"]
        assert set(lenders) == {name}


@pytest.mark.slow
def test_a_type_of_one_batch_is_generated_in_it():
    adata = simulate_counts(n_cells=900, n_genes=60, n_types=3, n_batches=2, seed=0)
    only = (adata.obs["cell_type"] == "type_0").to_numpy()
    adata = adata[~(only & (adata.obs["batch"] == "batch_1").to_numpy())].copy()
    BetaVI.setup_anndata(adata, batch_key="batch", labels_key="cell_type")
    model = BetaVI(adata, n_latent=4)
    model.train(**BRIEF | {"max_epochs": 20})
    new = model.generate(900, source="aggregate", seed=0, **QUIET)
    counted = pd.crosstab(new.obs["cell_type"], new.obs["batch"])
    assert counted.loc["type_0", "batch_0"] > 100
    assert (
        counted.reindex(columns=["batch_0", "batch_1"], fill_value=0).loc["type_0", "batch_1"] == 0
    )
    # and its genes are those of the type
    means = [np.asarray(part[part.obs["cell_type"] == "type_0"].X.mean(axis=0)).ravel()
             for part in (adata, new)]  # fmt: skip
    assert np.corrcoef(np.log1p(means))[0, 1] > 0.95


@pytest.mark.slow
def test_joint_totals_are_those_of_measured_cells_also_with_dropouts():
    mdata = simulate_multiome(n_cells=600, seed=0)
    JointVI.setup_mudata(mdata, {"rna": "zinb", "adt": "nb_mixture"})
    model = JointVI(mdata, n_latent=4)
    model.train(**BRIEF | {"max_epochs": 15})
    # so many dropouts that a size without regard to them is seen
    for weights in model.module.likelihoods["rna"].dropout.parameters():
        torch.nn.init.zeros_(weights)
    real = np.log(np.asarray(mdata["rna"].X.sum(axis=1)).ravel())
    for source in SOURCES:
        new = model.generate(600, source=source, seed=0, **QUIET)
        mine = np.log(np.asarray(new["rna"].X.sum(axis=1)).ravel())
        assert mine.mean() == pytest.approx(real.mean(), abs=0.15)


@pytest.mark.slow
def test_what_is_generated_is_realistic_in_order(trained):
    generated = {
        "posterior": trained.generate(1200, source="cells", seed=0, **QUIET),
        "aggregate": trained.generate(1200, source="aggregate", seed=0, **QUIET),
        "prior": trained.generate(1200, seed=0, **QUIET),
    }
    table = realism(trained.adata, generated, groupby="cell_type")
    floor = table.loc["genes shuffled"]
    for name in ("posterior", "aggregate"):
        assert table.loc[name, "auc"] < 0.75 < floor["auc"]
        assert table.loc[name, "energy"] < 0.3 * floor["energy"]
        assert table.loc[name, "lfc_r"] > 0.9
    assert table.loc["aggregate", "energy"] < table.loc["prior", "energy"]


def test_the_same_seed_the_same_cells_and_the_generators_as_they_were(trained):
    for source in SOURCES:
        before = torch.get_rng_state()
        one, two, other = (
            trained.generate(700, source=source, seed=seed, **QUIET) for seed in (1, 1, 2)
        )
        assert torch.equal(torch.get_rng_state(), before)
        assert (one.X != two.X).nnz == 0
        assert (one.X != other.X).nnz > 0
        assert one.obs.equals(two.obs)


def test_of_one_batch_and_read_back_by_the_model(trained):
    new = trained.generate(300, batch="batch_1", source="aggregate", seed=0, **QUIET)
    assert set(new.obs["batch"]) == {"batch_1"}
    assert sparse.issparse(new.X)
    assert (new.X.data == new.X.data.round()).all()
    again = trained.get_latent_representation(new)
    assert np.corrcoef(again.ravel(), new.obsm["z"].ravel())[0, 1] > 0.7
    # the label is that of cells near by
    types = trained.adata.obs["cell_type"].astype(str)
    near = types.loc[new.obs["near_cell"]].to_numpy()
    assert (near == new.obs["cell_type"].to_numpy()).all()


def test_at_given_positions(trained):
    z = trained.get_latent_representation()[:3]
    new = trained.generate(latent=z, seed=0, **QUIET)
    np.testing.assert_allclose(new.obsm["z"], z, rtol=1e-5)
    more = trained.generate(7, latent=z, seed=0, **QUIET)
    np.testing.assert_allclose(more.obsm["z"], z[[0, 1, 2, 0, 1, 2, 0]], rtol=1e-5)


@pytest.mark.parametrize("ending", [".h5ad", ".zarr"])
def test_a_file_has_the_same_cells(trained, tmp_path, ending, monkeypatch):
    monkeypatch.setattr("betavi._blocks.ENCODED_CELLS", 64)
    here = trained.generate(200, source="aggregate", seed=5, **QUIET)
    out = tmp_path / f"new{ending}"
    assert trained.generate(200, source="aggregate", seed=5, out=out, **QUIET) is None
    read = anndata.read_h5ad(out) if ending == ".h5ad" else anndata.read_zarr(out)
    assert (read.X != here.X).nnz == 0
    # zarr makes a file of each piece
    assert len(list(out.rglob("*"))) < 200
    # and more entries than 32 bits count would find room
    if ending == ".h5ad":
        with h5py.File(out) as file:
            assert file["X/indptr"].dtype == np.int64
    assert read.obs_names.equals(here.obs_names)
    assert read.obs["near_cell"].tolist() == here.obs["near_cell"].tolist()
    np.testing.assert_array_equal(read.obsm["z"], here.obsm["z"])
    assert read.uns["betavi"]["generated"]["source"] == "aggregate"
    with pytest.raises(FileExistsError, match="Remove the file"):
        trained.generate(5, out=out, **QUIET)


def test_a_cell_for_each_that_is_named(trained):
    names = trained.adata.obs_names[[4, 2, 7]]
    new = trained.generate(source="cells", cells=names, seed=0, **QUIET)
    assert new.obs["near_cell"].tolist() == names.tolist()


def test_a_file_that_is_not_complete_is_removed(trained, tmp_path, monkeypatch):
    monkeypatch.setattr("betavi._blocks.ENCODED_CELLS", 64)
    calls = []

    def fails(*arguments):
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return _draw_counts(*arguments)

    monkeypatch.setattr("betavi.model.generation.generate._draw_counts", fails)
    with pytest.raises(KeyboardInterrupt):
        trained.generate(200, out=tmp_path / "new.h5ad", **QUIET)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(FileNotFoundError, match=r"folder .* does not exist"):
        trained.generate(5, out=tmp_path / "none" / "new.h5ad", **QUIET)
    with pytest.raises(ValueError, match="ending of `out`"):
        trained.generate(5, out=tmp_path / "new.csv", **QUIET)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({}, "number of cells is missing"),
        ({"n_cells": 0}, "n_cells"),
        ({"n_cells": 2, "seed": -1}, "`seed` must be a whole number"),
        ({"n_cells": 2, "seed": 1.5}, "`seed` must be a whole number"),
        ({"n_cells": 2.5}, "n_cells"),
        ({"n_cells": 5, "source": "thin air"}, "source must be one of"),
        ({"n_cells": 5, "cells": [0]}, "source='cells'"),
        ({"n_cells": 5, "batch": "batch_9"}, "no batch 'batch_9'"),
        ({"n_cells": 5, "library_size": -1}, "positive"),
        ({"n_cells": 5, "library_size": "big"}, "positive"),
        ({"n_cells": 2, "library_size": [100.0, np.nan]}, "positive"),
        ({"n_cells": 3, "library_size": [100.0, 200.0]}, r"shape \(2,\), but 3 cells"),
        ({"n_cells": 5, "latent": np.zeros((2, 3))}, r"\(n, 5\)"),
        ({"n_cells": 5, "latent": np.full((2, 5), np.nan)}, "position 0 must be finite"),
        ({"latent": np.zeros((2, 5)), "source": "aggregate"}, "replaces `source` and `cells`"),
    ],
)
def test_what_means_nothing_is_refused(trained, asked, message):
    with pytest.raises(ValueError, match=message):
        trained.generate(**asked, **QUIET)


@pytest.mark.parametrize(
    ("cells", "error", "message"),
    [
        ("nobody", KeyError, "unknown cell name.*'nobody'"),
        ([10**6], IndexError, "1000000"),
        (np.zeros(3, dtype=bool), IndexError, "mask of 3"),
        (np.zeros(1200, dtype=bool), ValueError, "`cells` selects no cell"),
        ([0.5], ValueError, "whole numbers"),
    ],
)
def test_cells_that_do_not_exist_are_named(trained, cells, error, message):
    with pytest.raises(error, match=message):
        trained.generate(5, source="cells", cells=cells, **QUIET)


def test_an_autoencoder_has_no_prior_to_draw_from(counts):
    BetaVI.setup_anndata(counts)
    model = BetaVI(counts, latent_distribution="deterministic")
    model.train(**BRIEF)
    with pytest.raises(ValueError, match="source='aggregate'"):
        model.generate(5, **QUIET)
    assert model.generate(5, source="aggregate", **QUIET).n_obs == 5


def test_every_covariate_and_the_layer_come_along(counts):
    BetaVI.setup_anndata(
        counts,
        layer="raw",
        batch_key="batch",
        categorical_covariate_keys=["donor"],
        continuous_covariate_keys=["age"],
        size_factor_key="size",
    )
    model = BetaVI(counts)
    model.train(**BRIEF)
    for source in SOURCES:
        new = model.generate(40, source=source, seed=0, **QUIET)
        assert {"batch", "donor", "age", "size"} <= set(new.obs)
        assert (new.layers["raw"] != new.X).nnz == 0
        assert model.get_latent_representation(new).shape == (40, 10)


def test_of_a_minified_object_and_at_another_beta(counts):
    BetaVI.setup_anndata(counts, batch_key="batch")
    model = BetaVI(counts, beta=(0.1, 10.0))
    model.train(**BRIEF)
    low, high = (
        model.generate(50, source="cells", cells=[0], beta=b, seed=0, **QUIET) for b in (0.1, 10)
    )
    assert not np.allclose(low.obsm["z"], high.obsm["z"])
    expected = np.median(np.asarray(counts.X.sum(axis=1)))
    keys = ("X_latent_qzm", "X_latent_qzv")
    counts.obsm.update(zip(keys, model.get_latent_representation(return_dist=True), strict=True))
    model.minify_adata(beta=1.0)
    totals = np.asarray(model.generate(200, source="aggregate", seed=0, **QUIET).X.sum(axis=1))
    assert np.median(totals) == pytest.approx(expected, rel=0.2)


@pytest.mark.slow
def test_joint_cells_from_every_source():
    mdata = simulate_multiome(n_cells=400, seed=0)
    JointVI.setup_mudata(mdata, {"rna": "zinb", "adt": "nb_mixture"}, batch_key="batch")
    model = JointVI(mdata, n_latent=4)
    model.train(**BRIEF | {"max_epochs": 10})
    for source in SOURCES:
        new = model.generate(300, source=source, library_size={"rna": 500.0}, seed=0, **QUIET)
        totals = np.asarray(new["rna"].X.sum(axis=1)).ravel()
        assert totals.mean() == pytest.approx(500, rel=0.05)
    name = mdata.obs_names[3]
    around = model.generate(50, source="cells", cells=name, seed=0, **QUIET)
    mean, variance = model.get_latent_representation(indices=[3], return_dist=True)
    off = (around.obsm["z"].mean(axis=0) - mean) / np.sqrt(variance / 50)
    assert np.abs(off).max() < 4
    with pytest.raises(ValueError, match="modality of `library_size`"):
        model.generate(5, library_size={"dna": 1.0}, **QUIET)
    with pytest.raises(ValueError, match="positive number"):
        model.generate(5, library_size={"rna": 0}, **QUIET)
    sizes = np.tile([200.0, 2000.0], 150)
    new = model.generate(300, library_size={"rna": sizes}, seed=0, **QUIET)
    totals = np.asarray(new["rna"].X.sum(axis=1)).ravel()
    for size in (200.0, 2000.0):
        assert totals[sizes == size].mean() == pytest.approx(size, rel=0.1)
    with pytest.raises(ValueError, match="`library_size` must be one number"):
        model.archetype(library_size={"rna": sizes}, **QUIET)


def test_of_detection_the_size_is_a_depth():
    adata = simulate_counts(n_cells=400, n_genes=50, seed=0)
    depth = np.asarray(adata.X.sum(axis=1)).ravel()
    adata.X = (adata.X > 0).astype(np.float32)
    BetaVI.setup_anndata(adata)
    model = BetaVI(adata, n_latent=3, gene_likelihood="bernoulli")
    model.train(**BRIEF | {"max_epochs": 10})
    shares = [
        model.generate(500, library_size=size, seed=0, **QUIET).X.mean() for size in (5, 15, 40)
    ]
    assert shares == sorted(shares)
    assert shares[0] < 0.8 * shares[2]
    way = model.interpolate(int(depth.argmin()), int(depth.argmax()), n_steps=4)
    assert way.X.max() <= 1


def test_cells_as_if_in_another_batch(trained):
    cells = np.flatnonzero(trained.adata.obs["batch"] == "batch_0")[:200]
    options = {"source": "cells", "cells": cells, "seed": 0, **QUIET}
    own, other = trained.generate(200, **options), trained.generate(200, batch="batch_1", **options)
    assert set(other.obs["batch"]) == {"batch_1"}
    np.testing.assert_array_equal(own.obsm["z"], other.obsm["z"])
    real = [
        np.log1p(
            np.asarray(trained.adata.X[(trained.adata.obs["batch"] == b).to_numpy()].mean(axis=0))
        )
        for b in ("batch_0", "batch_1")
    ]
    mine = [np.log1p(np.asarray(new.X.mean(axis=0))) for new in (own, other)]
    assert np.corrcoef((real[1] - real[0]).ravel(), (mine[1] - mine[0]).ravel())[0, 1] > 0.5
    with pytest.raises(ValueError, match="one batch"):
        trained.generate(5, batch=["batch_0", "batch_1"], **QUIET)


def test_size_factors_are_those_that_were_decoded(counts):
    BetaVI.setup_anndata(counts, size_factor_key="size")
    model = BetaVI(counts)
    model.train(**BRIEF | {"max_epochs": 10})
    new = model.generate(400, library_size=500.0, source="aggregate", seed=0, **QUIET)
    totals = np.asarray(new.X.sum(axis=1)).ravel()
    assert totals.mean() == pytest.approx(500, rel=0.05)
    usual = model.generate(400, source="aggregate", seed=0, **QUIET)
    lent = counts.obs.loc[usual.obs["near_cell"], "size"]
    np.testing.assert_allclose(usual.obs["size"], lent, rtol=1e-5)
    # a cell of a larger total has a larger factor
    more = model.generate(400, library_size=1000.0, source="aggregate", seed=0, **QUIET)
    np.testing.assert_allclose(more.obs["size"] / new.obs["size"], 2, rtol=1e-3)


def test_labels_are_of_the_cell_whose_dispersion_was_decoded(counts):
    BetaVI.setup_anndata(counts, labels_key="cell_type")
    model = BetaVI(counts, dispersion="gene-label")
    model.train(**BRIEF)
    new = model.generate(100, source="aggregate", seed=0, **QUIET)
    lent = counts.obs.loc[new.obs["near_cell"], "cell_type"]
    assert new.obs["cell_type"].tolist() == lent.tolist()


def test_joint_cells_are_generated_into_the_layers_the_model_reads(tmp_path):
    mdata = simulate_multiome(n_cells=120, seed=0)
    mdata["rna"].layers["counts"] = mdata["rna"].X.copy()
    mdata["rna"].X = mdata["rna"].X * 0
    JointVI.setup_mudata(mdata, {"rna": "nb", "adt": "nb_mixture"}, layers={"rna": "counts"})
    model = JointVI(mdata, n_latent=3)
    model.train(**BRIEF)
    kept = model.generate(20, seed=0, **QUIET)
    assert kept["rna"].layers["counts"].sum() > 0
    model.generate(20, seed=0, out=tmp_path / "new.h5mu", **QUIET)
    found = mudata.read_h5mu(tmp_path / "new.h5mu")
    assert (found["rna"].layers["counts"] != kept["rna"].layers["counts"]).nnz == 0
    assert "counts" not in found["adt"].layers
    assert len(model.support(found, **QUIET)) == 20
