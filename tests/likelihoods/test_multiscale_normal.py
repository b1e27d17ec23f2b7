"""Details predicted from coarse to fine: the density beside a change of variables, and real images."""

from __future__ import annotations

import numpy as np
import pytest
import scvi
import torch
from anndata import AnnData
from scipy import stats

from betavi import BetaVI
from betavi.data import ImageFormat
from betavi.data.start_images import ImageStart
from betavi.datasets import crops, simulate_filaments
from betavi.likelihoods import IMAGE_LIKELIHOODS, DispersionSizes
from betavi.likelihoods._haar import HaarBasis, doubled, halved
from betavi.metrics import bits_per_pixel
from tests.real_images import real_image  # noqa: F401 - fixture

IMAGE = ImageFormat(1, 8, 8)


def smooth_images(n_images=60, n_channels=1, side=8):
    """Return images whose fine details follow from coarse ones, with a little noise."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:side, :side] / side
    phase = rng.uniform(0, 2 * np.pi, (n_images, n_channels, 1, 1))
    angle = rng.uniform(0, 2 * np.pi, (n_images, n_channels, 1, 1))
    wave = np.cos(6 * (np.cos(angle) * x + np.sin(angle) * y) + phase)
    images = 100 + 40 * wave + rng.normal(size=wave.shape)
    return torch.as_tensor(images).float().flatten(1)


def distribution(image=IMAGE, surroundings=1.0):
    """Return a distribution with networks that are far from their start."""
    torch.manual_seed(0)
    likelihood = IMAGE_LIKELIHOODS["multiscale_normal"](
        2 * image.n_pixels, image, "gene", DispersionSizes(1, 1)
    )
    images = smooth_images(60, image.n_channels, image.height)
    deviation = images.std()
    start = ImageStart(images.mean()[None], deviation[None], images)
    likelihood.start_at(start)
    with torch.no_grad():
        for network in likelihood.networks:
            network.network[-1].weight.mul_(10 * surroundings)
            network.network[-1].bias.copy_(
                surroundings * torch.randn(len(network.network[-1].bias))
            )
    h = torch.randn(1, 2 * image.n_pixels)
    return likelihood(h, torch.zeros(1, 1), torch.zeros(1, 1).long(), None)


def drawn_from(px, noise):
    """Return the image of standard normal numbers, ``(n_pixels,)``."""
    start = 0

    def draw(deviation):
        nonlocal start
        end = start + deviation.numel()
        part, start = noise[start:end].reshape(deviation.shape), end
        return deviation * part

    return px._from_coarse_to_fine(draw).squeeze(0)


def test_the_density_is_that_of_a_change_of_variables():
    """An image is a function of standard normal numbers; its Jacobian gives the density."""
    px = distribution()
    noise = torch.randn(IMAGE.n_pixels)
    image = drawn_from(px, noise)
    jacobian = torch.autograd.functional.jacobian(lambda u: drawn_from(px, u), noise)
    log_volume = torch.linalg.slogdet(jacobian.double()).logabsdet.item()
    expected = stats.norm.logpdf(noise.numpy()).sum() - log_volume
    tiny = type(px)(px.loc, px.log_noise, 1e-3, px.basis, px.networks)
    found = tiny.log_prob(image).sum().item() - IMAGE.n_pixels * np.log(1e-3)
    assert found == pytest.approx(expected, abs=0.01)


def test_networks_change_the_noise_and_the_mean_of_details():
    """The distribution above is not one without surroundings."""
    strong, weak = distribution(), distribution(surroundings=0.0)
    image = smooth_images(2)[:1]
    assert (strong.mean - weak.mean).abs().max() > 1
    assert (strong.log_prob(image) - weak.log_prob(image)).abs().max() > 1


@torch.no_grad()
def test_the_log_probability_is_near_the_mean_over_the_quantisation_step():
    px = distribution()
    torch.manual_seed(1)
    image = smooth_images(3)[:1].round()
    noise = torch.rand(20_000, IMAGE.n_pixels) - 0.5
    tiny = type(px)(px.loc.expand(20_000, -1), px.log_noise, 1e-3, px.basis, px.networks)
    densities = tiny.log_prob(image + noise).sum(dim=1) - IMAGE.n_pixels * np.log(1e-3)
    # the networks read the grey levels without this noise, which changes little
    found = px.log_prob(image).sum().item() / IMAGE.n_pixels
    assert found == pytest.approx(densities.mean().item() / IMAGE.n_pixels, abs=0.02)


def test_halving_gives_sums_and_differences():
    image = torch.tensor([[[1.0, 3.0], [5.0, 11.0]]])
    coarse, details = halved(image)
    assert coarse.flatten().tolist() == [10.0]
    assert details.flatten().tolist() == [-4.0, -6.0, 2.0]
    torch.testing.assert_close(doubled(coarse, details), image)


@pytest.mark.parametrize(
    ("height", "width", "n_levels"), [(32, 32, 3), (48, 64, 3), (128, 128, 5), (8, 4, 0)]
)
def test_the_coarsest_image_has_sides_of_at_least_four(height, width, n_levels):
    basis = HaarBasis(2, height, width)
    assert basis.n_levels == n_levels
    coarsest = basis.parts(basis(torch.ones(1, 2 * height * width)))[0]
    assert coarsest.shape == (1, 2, height >> n_levels, width >> n_levels)
    # a constant image has no details
    assert coarsest.square().sum() == pytest.approx(2 * height * width, rel=1e-5)


def held_out_bits(likelihood, images, n_fit, **options):
    scvi.settings.seed = 0
    adata, judged = AnnData(obsm={"image": images[:n_fit]}), AnnData(obsm={"image": images[n_fit:]})
    BetaVI.setup_anndata(adata, image_key="image")
    model = BetaVI(adata, n_latent=8, gene_likelihood=likelihood)
    model.train(enable_progress_bar=False, accelerator="cpu", **options)
    scvi.settings.seed = 0
    nats = -model.get_elbo(adata=judged)
    return bits_per_pixel(np.array([nats]), images.shape[1:]).mean(), model


@pytest.mark.slow
def test_details_from_coarse_images_save_bits_on_filaments():
    """Also beside the noise level of each band, with 300 images. Draws have the right strength."""
    images = simulate_filaments(400, 32, n_genes=0, seed=3)["image"].obsm["image"]
    bits, model = held_out_bits("multiscale_normal", images, 300, max_epochs=30)
    others, _ = held_out_bits("band_normal", images, 300, max_epochs=30)
    assert bits < others - 0.3
    draws = model.generate(200, show_progress=False).obsm["image"]
    assert draws.mean() == pytest.approx(images.mean(), rel=0.25)
    steps = [np.square(np.diff(x.astype(float), axis=-1)).mean() for x in (draws, images)]
    assert 0.5 < steps[0] / steps[1] < 2


@pytest.mark.slow
def test_details_from_coarse_images_save_bits_on_real_mitochondria(real_image):  # noqa: F811
    adata = crops(real_image("BPAE_mito.tif"), 64, 32, min_contrast=200.0)
    parts = [
        adata.obsm["image"][(adata.obs["set"] == name).to_numpy()]
        for name in ("training", "held_out")
    ]
    images, n_fit = np.concatenate(parts), len(parts[0])
    bits, _ = held_out_bits("multiscale_normal", images, n_fit, max_epochs=40)
    others, _ = held_out_bits("band_normal", images, n_fit, max_epochs=40)
    assert bits < others
