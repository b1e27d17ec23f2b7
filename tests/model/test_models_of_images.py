"""Models of images, alone and together with counts."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scvi
from anndata import AnnData
from mudata import MuData

from betavi import BetaVI, JointVI
from betavi.datasets import simulate_filaments
from betavi.likelihoods import IMAGE_LIKELIHOODS
from tests.conftest import BRIEF

N_CELLS, SIDE, N_GENES = 300, 32, 30
QUICK = {"enable_progress_bar": False, "accelerator": "cpu", "batch_size": 30, "max_epochs": 25}


def expected_spots(centres):
    """Return one bright spot for each cell, whose place is known, ``(n_cells, height, width)``."""
    y, x = np.mgrid[:SIDE, :SIDE]
    cy, cx = (SIDE / 2 + 3 * centre[:, None, None] for centre in centres.T)
    return 3 + 40 * np.exp(-(np.square(y - cy) + np.square(x - cx)) / 50)


def spots(centres, seed=0):
    """Return photon counts of :func:`expected_spots`."""
    counts = np.random.default_rng(seed).poisson(expected_spots(centres)[:, None])
    return counts.astype(np.uint16)


def centres(n_cells=N_CELLS, seed=1):
    return np.random.default_rng(seed).normal(size=(n_cells, 2)).clip(-2, 2)


@pytest.fixture(scope="module")
def trained():
    scvi.settings.seed = 0
    adata = AnnData(obsm={"image": spots(centres())})
    adata.obs["batch"] = np.tile(["a", "b", "c"], N_CELLS // 3)
    BetaVI.setup_anndata(adata, image_key="image", batch_key="batch")
    model = BetaVI(adata, n_latent=4, gene_likelihood="band_normal")
    model.train(**QUICK)
    return model


@pytest.fixture(scope="module")
def joint():
    """Genes and spots with the same positions. A fifth of the cells lacks each modality."""
    scvi.settings.seed = 0
    rng, place = np.random.default_rng(2), centres()
    genes = rng.poisson(np.exp(1 + 0.4 * place @ rng.normal(size=(2, N_GENES))))
    names = pd.Index([f"cell{i}" for i in range(N_CELLS)])
    rna = AnnData(genes.astype(np.float32), obs=pd.DataFrame(index=names))[: 4 * N_CELLS // 5]
    image = AnnData(obs=pd.DataFrame(index=names), obsm={"image": spots(place)})[N_CELLS // 5 :]
    mdata = MuData({"rna": rna.copy(), "image": image.copy()})
    likelihoods = {"rna": "nb", "image": "band_normal"}
    JointVI.setup_mudata(mdata, likelihoods, image_keys={"image": "image"})
    model = JointVI(mdata, n_latent=4)
    model.train(**QUICK, train_size=0.7)
    return model, genes


@pytest.mark.parametrize("name", IMAGE_LIKELIHOODS)
def test_every_likelihood_trains_denoises_and_generates(name, tmp_path):
    adata = AnnData(obsm={"image": spots(centres(60))})
    BetaVI.setup_anndata(adata, image_key="image")
    model = BetaVI(adata, n_latent=3, gene_likelihood=name)
    model.train(**BRIEF)
    model.denoise(std_layer_added="std", n_samples=2, show_progress=False)
    assert adata.obsm["denoised"].shape == adata.obsm["std"].shape == (60, 1, SIDE, SIDE)
    new = model.generate(5, show_progress=False)
    assert new.obsm["image"].shape == (5, 1, SIDE, SIDE)
    assert np.isfinite(model.get_latent_representation(new)).all()
    assert np.isfinite(model.get_marginal_ll(n_mc_samples=2))
    model.save(tmp_path, overwrite=True)
    loaded = BetaVI.load(tmp_path, adata=adata)
    for ability in ("get_latent_representation", "get_elbo"):
        scvi.settings.seed = 0
        expected = getattr(model, ability)()
        scvi.settings.seed = 0
        np.testing.assert_allclose(getattr(loaded, ability)(), expected, rtol=1e-4, atol=1e-4)
    assert loaded.likelihood("X").image == model.likelihood("X").image


def test_the_position_is_in_the_latent_space(trained):
    """A linear map of z finds the place of the spot."""
    z, place = trained.get_latent_representation(), centres()
    design = np.column_stack([z, np.ones(len(z))])
    residual = place - design @ np.linalg.lstsq(design, place, rcond=None)[0]
    assert residual.var() / place.var() < 0.3


def test_denoised_images_are_nearer_to_the_truth_than_measured_ones(trained):
    adata = AnnData(obsm={"image": spots(centres(100, seed=5))})
    adata.obs["batch"] = "a"
    trained.denoise(adata, show_progress=False)
    truth = expected_spots(centres(100, seed=5))
    error = np.square(adata.obsm["denoised"][:, 0] - truth).mean()
    assert error < np.square(adata.obsm["image"][:, 0] - truth).mean()
    assert error < 0.5 * np.square(truth - truth.mean(axis=0)).mean()
    assert adata.obsm["image"].dtype == np.uint16
    # its own result may be replaced, but nothing else
    trained.denoise(adata, show_progress=False)
    with pytest.raises(ValueError, match=r"obsm\['image'\] exists"):
        trained.denoise(adata, "image", show_progress=False)
    for option, value in {"drop_below": 1.0, "gene_list": ["c0_y0_x0"], "out": "x.zarr"}.items():
        with pytest.raises(ValueError, match=f"`{option}` is not available for images"):
            trained.denoise(adata, show_progress=False, **{option: value})
    with pytest.raises(ValueError, match="need a name"):
        trained.denoise(adata, None, show_progress=False)


def test_draws_of_images_have_their_shape_and_noise(trained):
    cells = np.arange(50)
    scvi.settings.seed = 0
    draws = trained.posterior_predictive_sample(indices=cells, n_samples=40)
    assert draws.shape == (50, 1, SIDE, SIDE, 40)
    assert trained.posterior_predictive_sample(indices=cells).shape == (50, 1, SIDE, SIDE)
    truth = trained.adata.obsm["image"][cells]
    assert draws.mean() == pytest.approx(truth.mean(), rel=0.05)
    assert (draws - draws.mean(axis=-1, keepdims=True)).var() > 0.5 * truth.mean()
    with pytest.raises(ValueError, match="`gene_list` is not available for images"):
        trained.posterior_predictive_sample(gene_list=["c0_y0_x0"])


def test_images_have_a_curve_of_rate_and_distortion():
    """A higher β gives a lower rate and a higher distortion. The table is in nats per image."""
    scvi.settings.seed = 0
    adata = AnnData(obsm={"image": spots(centres())})
    BetaVI.setup_anndata(adata, image_key="image")
    model = BetaVI(adata, n_latent=3, gene_likelihood="normal_image", beta=(0.1, 30))
    model.train(**QUICK, keep_best=False)
    curve = model.rate_distortion(betas=[0.1, 30], n_samples=10, show_progress=False)
    low, high = curve.iloc[0], curve.iloc[1]
    assert low["rate"] > high["rate"]
    assert low["distortion"] < high["distortion"]
    for row in (low, high):
        assert row["elbo"] == pytest.approx(-(row["rate"] + row["distortion"]), rel=1e-5)
    bits = high["distortion"] / (np.log(2) * SIDE**2)
    assert 1 < bits < 6


def test_used_dimensions_are_diagnosed(trained):
    report = trained.diagnose(show_progress=False)
    assert (report.dimensions["status"] == "used").sum() >= 2
    assert report.spectrum.n_factors >= 2
    assert report.explained["X"] > 15


def test_white_noise_has_no_directions():
    adata = AnnData(obsm={"image": np.random.default_rng(0).poisson(9.0, (200, 1, SIDE, SIDE))})
    BetaVI.setup_anndata(adata, image_key="image")
    model = BetaVI(adata, n_latent=4, gene_likelihood="band_normal")
    model.train(**BRIEF)
    report = model.diagnose(show_progress=False)
    assert report.spectrum.n_factors == 0
    assert (report.dimensions["status"] != "used").all()


def test_paths_and_archetypes_are_images(trained):
    steps = trained.interpolate(*trained.adata.obs_names[:2], n_steps=3, show_progress=False)
    assert steps.obsm["image"].shape == steps.obsm["std"].shape == (3, 1, SIDE, SIDE)
    assert (steps.obs["uncertainty"] > 0).all()
    points = trained.archetype(show_progress=False)
    mean = trained.adata.obsm["image"].mean(axis=0)
    np.testing.assert_allclose(points.obsm["image"][1], mean, rtol=1e-4)
    assert trained.find_holes(show_progress=False).n_vars == 0


def test_outlying_images_have_small_p_values(trained):
    same, other = (AnnData(obsm={"image": spots(centres(40, seed=7))}) for _ in range(2))
    other.obsm["image"] = other.obsm["image"] + 60 * (np.arange(SIDE) % 8 == 0).astype(np.uint16)
    same.obs["batch"] = other.obs["batch"] = "a"
    found = [trained.support(cells, show_progress=False)["p_value"] for cells in (same, other)]
    assert np.median(found[0]) > 0.1
    assert np.median(found[1]) < 0.05


def test_methods_for_counts_refuse_images(trained):
    calls = {
        "get_normalized_expression": {}, "differential_expression": {"groupby": "batch"},
        "get_latent_library_size": {}, "score_counts": {}, "raw_counts": {},
        "cross_validate_denoising": {}, "check_false_signals": {}, "explain_dimensions": {},
        "minify_adata": {},
    }  # fmt: skip
    for name, kwargs in calls.items():
        with pytest.raises(ValueError, match="is for counts, but the modality 'X' has images"):
            getattr(trained, name)(**kwargs)
    with pytest.raises(ValueError, match="`library_size`"):
        trained.denoise(library_size=100, show_progress=False)
    with pytest.raises(ValueError, match="Leave `out` out"):
        trained.generate(3, out="new.h5ad")


def test_a_range_of_beta_and_other_options_are_for_images_too():
    adata = AnnData(obsm={"image": spots(centres(60))})
    adata.obs["batch"] = np.tile(["a", "b"], 30)
    BetaVI.setup_anndata(adata, image_key="image", batch_key="batch")
    options = {"gene_likelihood": "band_normal", "n_latent": 3}
    model = BetaVI(adata, **options, beta=(0.1, 10), dispersion="gene-batch")
    model.train(**BRIEF)
    low, high = (model.get_latent_representation(beta=beta) for beta in (0.1, 10))
    assert not np.allclose(low, high)
    others = {
        "prior": "vamp",
        "n_components": 5,
        "encode_covariates": True,
        "dispersion": "gene-cell",
    }
    model = BetaVI(adata, **options, **others)
    model.train(**BRIEF)
    assert np.isfinite(float(model.get_elbo()))


def test_minibatches_are_the_users_images_without_a_copy(trained):
    rows = trained.rows(trained.adata, "X")
    assert np.shares_memory(rows._data, trained.adata.obsm["image"])
    (tensors,) = trained.minibatches(trained.adata, [5, 2], 2)
    expected = trained.adata.obsm["image"][[5, 2]].reshape(2, -1)
    np.testing.assert_array_equal(tensors["X"], expected)


def test_cells_without_an_image_are_masked(joint):
    model, _ = joint
    (tensors,) = model.minibatches(model.adata, [0, N_CELLS - 1], 2)
    assert tensors["image_present"].ravel().tolist() == [False, True]
    losses = model.get_reconstruction_error(return_mean=False)["reconstruction_loss_image"]
    assert (losses[: N_CELLS // 5] == 0).all()
    assert (losses[N_CELLS // 5 :] > 0).all()


def paired_held_out(model):
    cells = np.asarray(model.validation_indices)
    return cells[(cells >= N_CELLS // 5) & (cells < 4 * N_CELLS // 5)]


def test_genes_predict_images_better_than_the_mean_image(joint):
    model, _ = joint
    found = model.translate("rna", "image", show_progress=False)
    assert found.n_obs == 4 * N_CELLS // 5
    cells, images = paired_held_out(model), spots(centres())
    truth = images[cells]
    at = found.obs_names.get_indexer(model.adata.obs_names[cells])
    error = np.square(found.obsm["image"][at] - truth).mean()
    mean = images[np.asarray(model.train_indices)].mean(axis=0)
    assert error < 0.6 * np.square(truth - mean).mean()
    lower, upper = found.obsm["lower"][at], found.obsm["upper"][at]
    assert 0.87 < ((lower <= truth) & (truth <= upper)).mean() < 0.93
    assert found.uns["coverage"].shape == (1, SIDE, SIDE)
    assert 0.87 < found.uns["coverage"].mean() < 0.93
    with pytest.raises(ValueError, match="scale='log1p' is for counts"):
        model.translate("rna", "image", scale="log1p")
    table = model.predictability("rna", "image", show_progress=False)
    assert table.index[0] == "c0_y0_x0"
    assert table["is_predictable"].to_numpy().reshape(SIDE, SIDE)[10:22, 10:22].mean() > 0.6


def test_images_predict_genes_better_than_the_mean(joint):
    model, genes = joint
    found = model.translate("image", "rna", show_progress=False)
    cells = paired_held_out(model)
    at = found.obs_names.get_indexer(model.adata.obs_names[cells])
    error = np.square(found.X[at] - genes[cells]).mean()
    mean = genes[np.asarray(model.train_indices)].mean(axis=0)
    assert error < 0.6 * np.square(genes[cells] - mean).mean()


def test_a_joint_model_is_saved_denoised_and_generates(joint, tmp_path):
    model, _ = joint
    model.save(tmp_path, overwrite=True, save_anndata=True)
    loaded = JointVI.load(tmp_path)
    expected = model.get_latent_representation()
    np.testing.assert_allclose(loaded.get_latent_representation(), expected, rtol=1e-4, atol=1e-5)
    loaded.denoise(show_progress=False)
    assert loaded.adata["image"].obsm["denoised"].shape == (4 * N_CELLS // 5, 1, SIDE, SIDE)
    assert loaded.adata["rna"].layers["denoised"].shape == (4 * N_CELLS // 5, N_GENES)
    new = model.generate(4, show_progress=False)
    assert new["image"].obsm["image"].shape == (4, 1, SIDE, SIDE)
    assert np.isfinite(model.get_latent_representation(new)).all()
    report = model.diagnose(modalities="image", show_progress=False)
    assert (report.dimensions["status"] == "used").any()
    other = model.sibling(likelihoods={"image": "normal_image"})
    assert other.module.likelihood_names == {"rna": "nb", "image": "normal_image"}


def test_a_likelihood_that_reads_the_image_explains_unused_dimensions():
    """And the report does not speak of counts or genes."""
    scvi.settings.seed = 0
    adata = AnnData(obsm={"image": simulate_filaments(200, 32, n_genes=0)["image"].obsm["image"]})
    BetaVI.setup_anndata(adata, image_key="image")
    model = BetaVI(adata, n_latent=4, gene_likelihood="multiscale_normal")
    model.train(max_epochs=10, enable_progress_bar=False, accelerator="cpu")
    report = model.diagnose(show_progress=False)
    assert report.active_dimensions < 4
    assert report.causes[0].name == "likelihood_reads_image"
    assert "genes" not in str(report)


@pytest.mark.parametrize("name", ["band_normal", "multiscale_normal"])
def test_images_of_a_new_batch_are_mapped(name):
    """There are no genes to sort, so preparing the query changes nothing."""
    adata = AnnData(obsm={"image": spots(centres(60))})
    adata.obs["batch"] = np.tile(["a", "b"], 30)
    BetaVI.setup_anndata(adata, image_key="image", batch_key="batch")
    model = BetaVI(adata, n_latent=3, gene_likelihood=name, dispersion="gene-batch")
    model.train(**BRIEF)
    query = AnnData(obsm={"image": spots(centres(20, seed=4))})
    query.obs["batch"] = "new"
    assert BetaVI.prepare_query_anndata(query, model) is None
    mapped = BetaVI.load_query_data(query, model)
    mapped.train(**BRIEF, plan_kwargs={"weight_decay": 0.0})
    assert mapped.get_latent_representation().shape == (20, 3)
    assert np.isfinite(mapped.get_elbo())


def test_a_query_has_images_of_its_own(joint):
    model, _ = joint
    query = model.adata.copy()
    mapped = JointVI.load_query_data(query, model)
    mapped.train(**BRIEF)
    assert mapped.get_latent_representation().shape == (N_CELLS, 4)


def bpae(columns, stride):
    if (folder := os.environ.get("BETAVI_DATA_DIR")) is None:
        pytest.skip("set BETAVI_DATA_DIR to the folder of the data sets")
    image = pytest.importorskip("PIL.Image")
    pixels = np.asarray(image.open(Path(folder) / "images" / "BPAE_mito.tif"))[:, columns]
    starts = [range(0, length - 63, stride) for length in pixels.shape]
    crops = [pixels[y : y + 64, x : x + 64] for y in starts[0] for x in starts[1]]
    return AnnData(obsm={"image": np.stack(crops)[:, None]})


@pytest.mark.slow
def test_bands_save_bits_on_real_mitochondria():
    """On crops of the right part of a cell, after training on crops of its left part."""
    bits = {}
    for name in ("normal_image", "band_normal"):
        scvi.settings.seed = 0
        left, right = bpae(slice(None, 640), 24), bpae(slice(640, None), 32)
        BetaVI.setup_anndata(left, image_key="image")
        model = BetaVI(left, n_latent=16, gene_likelihood=name)
        model.train(**QUICK | {"batch_size": 128, "max_epochs": 15})
        bits[name] = -float(model.get_elbo(right)) / (np.log(2) * 64**2)
    assert bits["band_normal"] < bits["normal_image"] - 0.3
