"""A model of images is compared with probabilistic PCA, whose evidence has a closed form."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scvi
import torch
from anndata import AnnData
from scipy import stats

from betavi import BetaVI

SIDE, N_IMAGES, N_LATENT = 32, 400, 5
AT_START = {
    "max_epochs": 1, "enable_progress_bar": False, "accelerator": "cpu",
    "plan_kwargs": {"lr": 1e-12},
}  # fmt: skip


def images_of_waves(n_images=N_IMAGES, seed=0):
    """Return images of two waves of random strength, and coarse and fine noise."""
    rng = np.random.default_rng(seed)
    x = 2 * np.pi * np.arange(SIDE) / SIDE
    waves = np.stack([np.outer(np.sin(x), np.cos(2 * x)), np.outer(np.cos(3 * x), np.ones(SIDE))])
    images = np.tensordot(rng.normal(size=(n_images, 2)) * [2, 1.2], waves, axes=1)
    coarse = rng.normal(size=(n_images, SIDE // 8, SIDE // 8)).repeat(8, 1).repeat(8, 2)
    images = 50 + images + coarse + rng.normal(size=images.shape)
    return images[:, None].astype(np.float32)


def at_start(likelihood, **options):
    """Return a model that is hardly trained, so that PCA is better on held-out images."""
    scvi.settings.seed = 0
    adata = AnnData(obsm={"image": images_of_waves()})
    BetaVI.setup_anndata(adata, image_key="image")
    model = BetaVI(adata, n_latent=N_LATENT, gene_likelihood=likelihood, **options)
    model.train(**AT_START)
    return model


@pytest.mark.parametrize("likelihood", ["normal_image", "band_normal"])
def test_the_elbo_is_the_evidence_of_probabilistic_pca(likelihood):
    model, judged = at_start(likelihood), AnnData(obsm={"image": images_of_waves(200, seed=1)})
    z = torch.cat([torch.zeros(1, N_LATENT), torch.eye(N_LATENT)])
    batch = torch.zeros(len(z), 1, dtype=torch.long)
    with torch.no_grad():
        px = model.module.decoded(z, {"X": torch.zeros(len(z), 1)}, batch)["X"]
    centre, effects = px.loc[0].double(), (px.loc[1:] - px.loc[0]).double()
    noise = px.deviation.detach().square().double()
    functions = torch.eye(SIDE**2) if px.basis is None else px.basis(torch.eye(SIDE**2))
    covariance = effects.T @ effects + (functions.double() * noise) @ functions.double().T
    evidence = stats.multivariate_normal(centre.numpy(), covariance.numpy()).logpdf(
        judged.obsm["image"].reshape(200, -1)
    )
    expected = evidence.mean() + SIDE**2 * math.log(px.step) - (px.step**2 / 24 / noise).sum()
    scvi.settings.seed = 0
    found = float(model.get_elbo(judged))
    # the bound is tight, because the posterior is exact
    assert found == pytest.approx(float(expected), abs=1.0)
    # two waves have signal
    assert (effects.norm(dim=1) > 20).sum() == 2
    assert abs(evidence.mean() / SIDE**2 + 1.5) < 0.4


@pytest.mark.parametrize("likelihood", ["normal_image", "band_normal"])
def test_draws_have_the_variance_of_the_images(likelihood):
    model = at_start(likelihood)
    draws = model.generate(300, seed=0, show_progress=False).obsm["image"]
    truth = images_of_waves(300, seed=2)
    assert draws.var(axis=0).mean() == pytest.approx(truth.var(axis=0).mean(), rel=0.15)


def strengths(model):
    return model.module.decoders["X"].linear.weight.norm(dim=0)


def test_a_high_beta_keeps_fewer_components():
    """A component weaker than β times the noise has no effect, and a stronger one a smaller one."""
    found = [at_start("normal_image", beta=beta) for beta in (1.0, 20.0, 3000.0)]
    # a weight of one unit of noise
    numbers = [(strengths(model) > 1).sum().item() for model in found]
    assert numbers[0] >= numbers[1] >= 2
    assert numbers[2] == 0
    assert strengths(found[1]).max() < strengths(found[0]).max()


@pytest.mark.parametrize(
    "options", [{"latent_distribution": "ln"}, {"keep_best": False}, {"target_rate": 3.0}]
)
def test_without_a_comparison_the_model_is_the_network(options):
    scvi.settings.seed = 0
    adata = AnnData(obsm={"image": images_of_waves()})
    BetaVI.setup_anndata(adata, image_key="image")
    latent = options if "latent_distribution" in options else {}
    model = BetaVI(adata, n_latent=N_LATENT, gene_likelihood="band_normal", **latent)
    model.train(**AT_START | ({} if latent else options))
    assert not strengths(model).any()
    assert np.isfinite(float(model.get_elbo()))


def test_a_network_that_is_better_than_pca_is_kept():
    """Spots at random places are no sum of a few images."""
    scvi.settings.seed = 0
    place = np.random.default_rng(1).normal(size=(300, 2)).clip(-2, 2)
    y, x = np.mgrid[:SIDE, :SIDE]
    cy, cx = (SIDE / 2 + 3 * part[:, None, None] for part in place.T)
    spots = 3 + 40 * np.exp(-(np.square(y - cy) + np.square(x - cx)) / 50)
    adata = AnnData(obsm={"image": np.random.default_rng(0).poisson(spots)[:, None]})
    BetaVI.setup_anndata(adata, image_key="image")
    model = BetaVI(adata, n_latent=4, gene_likelihood="band_normal")
    model.train(max_epochs=25, batch_size=30, enable_progress_bar=False, accelerator="cpu")
    assert not strengths(model).any()


def test_the_linear_paths_survive_more_training_and_saving(tmp_path):
    model = at_start("band_normal")
    before = model.module.decoders["X"].linear.weight.clone()
    assert before.any()
    model.train(max_epochs=2, enable_progress_bar=False, accelerator="cpu")
    torch.testing.assert_close(model.module.decoders["X"].linear.weight, before, rtol=0, atol=0)
    model.save(tmp_path, overwrite=True)
    loaded = BetaVI.load(tmp_path, adata=model.adata)
    torch.testing.assert_close(loaded.module.decoders["X"].linear.weight, before, rtol=0, atol=0)
