"""Start values of images beside probabilistic PCA."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from anndata import AnnData
from sklearn.decomposition import PCA

from betavi import BetaVI
from betavi.data.start_images import image_components, image_start

N_PIXELS, N_FACTORS, NOISE = 30, 3, 0.7


def factor_images(n_images, seed=0):
    """Return images with three directions of decreasing strength, and white noise."""
    rng = np.random.default_rng(seed)
    directions = np.diag([6.0, 4.0, 2.0]) @ np.linalg.qr(rng.normal(size=(N_PIXELS, 3)))[0].T
    images = 5 + rng.normal(size=(n_images, N_FACTORS)) @ directions
    return torch.as_tensor(images + NOISE * rng.normal(size=images.shape)).float()


def test_components_are_those_of_probabilistic_pca():
    images = factor_images(20_000)
    found = image_components(images, N_FACTORS)
    covariance = (found.effects.T @ found.effects).numpy() + NOISE**2 * np.eye(N_PIXELS)
    expected = PCA(N_FACTORS).fit(images.numpy()).get_covariance()
    np.testing.assert_allclose(covariance, expected, atol=0.05 * expected.diagonal().max())
    assert found.residual.square().mean().sqrt() == pytest.approx(NOISE, rel=0.02)


def test_the_posterior_is_that_of_the_linear_model():
    """Mean and variance by the formula of Tipping and Bishop, from the effects and the noise."""
    found = image_components(factor_images(5000), N_FACTORS)
    effects = found.effects.double().numpy()
    noise = found.residual.square().mean().item()
    precision = effects @ effects.T + noise * np.eye(N_FACTORS)
    expected = np.linalg.solve(precision, effects)
    readers, variance = found.posterior()
    np.testing.assert_allclose(readers, expected, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(variance, noise * np.linalg.inv(precision).diagonal(), rtol=1e-3)


def test_components_of_noise_have_no_effect():
    """PCA of few images finds directions in noise. Held-out images show that they are none."""
    noise = torch.randn(60, 400, generator=torch.Generator().manual_seed(0))
    found = image_components(noise, 20)
    share = found.effects.square().sum() / noise.square().sum(dim=1).mean()
    assert share < 0.02
    in_sample = PCA(20).fit(noise.numpy())
    assert in_sample.explained_variance_ratio_.sum() > 0.3


@pytest.mark.parametrize("n_images", [1, 2, 5])
def test_few_images_give_finite_components(n_images):
    found = image_components(factor_images(n_images), 10)
    assert all(torch.isfinite(part).all() for part in found)
    readers, variance = found.posterior()
    assert found.effects.shape == readers.shape == (10, N_PIXELS)
    assert torch.isfinite(readers).all()
    assert (variance <= 1.001).all()


def test_differences_between_batches_are_no_components():
    rng = np.random.default_rng(0)
    images = rng.poisson(9.0, (40, 1, 32, 32))
    images[::2, :, :16] += 50
    adata = AnnData(obsm={"image": images.astype(np.uint16)})
    adata.obs["batch"] = np.tile(["a", "b"], 20)
    BetaVI.setup_anndata(adata, image_key="image", batch_key="batch")
    manager = BetaVI(adata, gene_likelihood="band_normal").adata_manager
    start = image_start(manager, "X", np.arange(40))
    means = [start.images[part].mean(dim=0) for part in (slice(0, None, 2), slice(1, None, 2))]
    torch.testing.assert_close(*means, rtol=1e-4, atol=1e-3)
    assert start.images.mean() == pytest.approx(images.mean(), rel=1e-4)
    # the deviation is of the images as they are
    assert start.deviation.item() == pytest.approx(images.std(), rel=1e-4)
