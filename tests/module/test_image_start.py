"""A model of images starts at probabilistic PCA, whose evidence has a closed form."""

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
    scvi.settings.seed = 0
    adata = AnnData(obsm={"image": images_of_waves()})
    BetaVI.setup_anndata(adata, image_key="image")
    model = BetaVI(adata, n_latent=N_LATENT, gene_likelihood=likelihood, **options)
    model.train(**AT_START)
    return model


@pytest.mark.parametrize("likelihood", ["normal_image", "band_normal"])
def test_the_elbo_at_the_start_is_the_evidence_of_probabilistic_pca(likelihood):
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
def test_the_noise_at_the_start_is_that_of_the_images(likelihood):
    model = at_start(likelihood)
    draws = model.generate(300, seed=0, show_progress=False).obsm["image"]
    truth = images_of_waves(300, seed=2)
    assert draws.var(axis=0).mean() == pytest.approx(truth.var(axis=0).mean(), rel=0.15)


def test_a_latent_space_with_limits_has_no_linear_start():
    model = at_start("band_normal", latent_distribution="ln")
    assert not model.module.decoders["X"].linear.weight.any()
    assert np.isfinite(float(model.get_elbo()))


def test_a_high_beta_starts_with_fewer_components():
    """A component whose strength is between the noise and β times the noise has no effect."""
    effects = [
        at_start("normal_image", beta=beta).module.decoders["X"].linear.weight.norm(dim=0)
        for beta in (1.0, 400.0)
    ]
    # waves of 1024 pixels: strengths of about 1024 and 700 in units of the noise
    assert [(norm > 10).sum().item() for norm in effects] == [2, 2]
    assert (
        effects[1].sort(descending=True).values[:2] < effects[0].sort(descending=True).values[:2]
    ).all()
    none = at_start("normal_image", beta=3000.0).module.decoders["X"].linear.weight
    assert not none.any()


def test_the_linear_paths_are_not_trained_and_survive_saving(tmp_path):
    model = at_start("band_normal")
    before = model.module.decoders["X"].linear.weight.clone()
    assert before.any()
    model.train(max_epochs=2, enable_progress_bar=False, accelerator="cpu")
    torch.testing.assert_close(model.module.decoders["X"].linear.weight, before, rtol=0, atol=0)
    model.save(tmp_path, overwrite=True)
    loaded = BetaVI.load(tmp_path, adata=model.adata)
    torch.testing.assert_close(loaded.module.decoders["X"].linear.weight, before, rtol=0, atol=0)
