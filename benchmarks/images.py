"""Do likelihoods of images keep filaments? ``python -m benchmarks.images [word ...]``.

Words are names of data, of rows, and seeds; by default all data and rows, and seeds 0 to 2. Models
are fitted to one set of images and judged on another. *simulated*: 4,000 and 500 images of filaments.
*few* and *some*: 300 and 1,000 to fit. *mito*, *actin* and *nuclei*: crops of BPAE_mito.tif and so on in
BETAVI_DATA_DIR/images, from its left half to fit and from its right half to judge. Crops to fit overlap,
and crops to judge do not. Seeds change the simulated images, and on real images only random numbers of
the methods. Methods were chosen on *few*, *some* and *actin*, and not on *mito* and *nuclei*.

Columns: *bits* per pixel of held-out camera counts, with a rounding step of 1; *rate*, nats per image;
*recall*, of ridges, at a precision of 0.8, and *AP*, average precision, both of the mean; *draw AP* and
*false*, average precision of a draw and its share of false ridges at the threshold of the truth. Ridges
are compared with the image without noise where it is known. *length* is the extent of connected bright
regions of a draw, in pixels, and *skew* the skewness of its pixels; *image without a model* has those of the images. The second table has the power by band:
of the mean relative to the signal, and of a draw relative to the image with its noise. Noise with the
right spectrum has the right power too, so *corr* is the correlation of the mean with the image.

*expected image* is the image without noise, which no method knows. Its bits are those of the camera
noise alone. *PCA k* is probabilistic PCA, with one residual variance, as in a likelihood with one σ.
*PCA k, bands* has a residual variance for each band of band_normal. Both take the components from four
fifths of the images to fit, and the variances from the last fifth. Rows are left out if there are too
few images for the components. Compare rows of similar rate. *bands n* has n bands per octave.

*BetaVI* rows have 64 dimensions and the default training, with the last fifth of the images held out,
as for PCA. *at R nats* has its β chosen in training so that the rate is R, so the two likelihoods can be
compared at the same rate. *no PCA* is the best epoch of the network, without a comparison with PCA. *last
epoch* is the last epoch of the network.

To add a row, write a function of a task and a seed that returns a ``Found``, and list it in ``ROWS``.
"""

from __future__ import annotations

import sys
import time
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple
from unittest import mock

import numpy as np
import pandas as pd
import scvi
import torch
from anndata import AnnData
from PIL import Image
from scipy import fft, ndimage, stats
from sklearn.utils.extmath import randomized_svd

from benchmarks.peers import processor, quietly, real_folder
from betavi import BetaVI
from betavi.datasets import crops, simulate_filaments
from betavi.likelihoods import BANDS_PER_OCTAVE, frequency_bands
from betavi.metrics import bits_per_pixel, power_ratio, ridges
from betavi.module.image_start import at_components

if TYPE_CHECKING:
    from collections.abc import Callable

SEEDS, SIZE, STRIDE, MIN_CONTRAST = (0, 1, 2), 64, 16, 200.0
"""Seeds, pixels of a crop, pixels between crops to fit, and counts of contrast of a crop."""

N_FIT, N_JUDGED = 4000, 500
COMPONENTS, N_LATENT, RATES = (16, 64, 256), 64, (30, 100)
FITTED_SHARE, N_ROUNDS = 0.8, 6
PRECISION = 0.8
DARK_SHARE = 0.85
LOG_2PI = np.log(2 * np.pi)


class Task(NamedTuple):
    """Camera counts to fit and to judge, and what a simulation knows of the latter."""

    fit: np.ndarray
    judged: np.ndarray
    expected: np.ndarray | None = None
    noise_sd: np.ndarray | None = None


class Found(NamedTuple):
    """Nats and rate per image, and reconstructions of the judged images: their mean and one draw."""

    nats: np.ndarray
    rate: float
    mean: np.ndarray
    draw: np.ndarray


def simulated(seed: int, n_fit: int = N_FIT) -> Task:
    obsm = simulate_filaments(n_fit + N_JUDGED, SIZE, n_genes=0, seed=seed)["image"].obsm
    parts = (obsm[name][n_fit:] for name in ("image", "expected_image", "noise_sd"))
    return Task(obsm["image"][:n_fit], *parts)


def cell(channel: str) -> Callable[[int], Task]:
    def crops_of(_seed: int) -> Task:  # there is one image
        image = np.asarray(Image.open(real_folder() / "images" / f"BPAE_{channel}.tif"))
        adata = crops(image, SIZE, STRIDE, min_contrast=MIN_CONTRAST)
        is_fit = (adata.obs["set"] == "training").to_numpy()
        row, column = (adata.obs[name].to_numpy() for name in ("row", "column"))
        is_apart = (row % SIZE == 0) & ((column - column[~is_fit].min()) % SIZE == 0)
        return Task(adata.obsm["image"][is_fit], adata.obsm["image"][~is_fit & is_apart])

    return crops_of


DATA: dict[str, Callable[[int], Task]] = {
    "simulated": simulated, "few": partial(simulated, n_fit=300),
    "some": partial(simulated, n_fit=1000), "mito": cell("mito"), "actin": cell("actin"),
    "nuclei": cell("nuclei"),
}  # fmt: skip


def expected_image(task: Task, seed: int) -> Found | None:
    if task.expected is None:
        return None
    score = (task.judged - task.expected) / task.noise_sd
    nats = (np.square(score) / 2 + np.log(task.noise_sd) + LOG_2PI / 2).sum(axis=(1, 2, 3))
    noise = task.noise_sd * np.random.default_rng(seed).normal(size=task.judged.shape)
    return Found(nats, np.nan, task.expected, task.expected + noise)


def pca(n_components: int, per_octave: int = 0) -> Callable[[Task, int], Found | None]:
    """Return probabilistic PCA of cosine coefficients, with a residual variance for each band."""

    def fit(task: Task, seed: int) -> Found | None:
        shape = task.fit.shape[1:]
        bands = np.zeros(shape[1:], int)
        if per_octave:
            bands = frequency_bands(*shape[1:], per_octave)
        groups = np.tile(bands.ravel(), shape[0])
        x, centre = coefficients(task.fit), coefficients(task.fit).mean(axis=0)
        n_fitted = int(FITTED_SHARE * len(x))
        if n_components >= n_fitted:
            return None
        first, last = x[:n_fitted] - centre, x[n_fitted:] - centre
        sd = np.full(groups.max() + 1, first.std())
        sizes = np.bincount(groups)
        # one variance does not change the components
        for _ in range(N_ROUNDS if per_octave else 1):
            basis = np.zeros((0, x.shape[1]))
            if n_components:
                basis = randomized_svd(first / sd[groups], n_components, random_state=seed)[2]
            scores = (last / sd[groups]) @ basis.T
            left = last / sd[groups] - scores @ basis
            power = np.bincount(groups, np.square(left).mean(axis=0)) / sizes
            # the components take a share of the dimensions
            taken = np.bincount(groups, np.square(basis).sum(axis=0)) / sizes
            sd = sd * np.sqrt(power / (1 - taken).clip(0.01))
        # a component has at least the residual variance, which is 1 in these units
        scores = (last / sd[groups]) @ basis.T
        variance = np.square(scores).mean(axis=0).clip(1)
        return judged_by_pca(task, seed, (basis, variance, sd[groups], centre))

    return fit


def judged_by_pca(
    task: Task, seed: int, model: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
) -> Found:
    basis, variance, sd, centre = model
    y = (coefficients(task.judged) - centre) / sd
    scores = y @ basis.T
    outside = np.square(y).sum(axis=1) - np.square(scores).sum(axis=1)
    log_det = np.log(variance).sum() + 2 * np.log(sd).sum()
    nats = (outside + (np.square(scores) / variance).sum(axis=1) + log_det) / 2
    nats += len(sd) * LOG_2PI / 2
    share = 1 - 1 / variance  # of a score that is signal
    latent = scores * share / np.sqrt((variance - 1).clip(1e-12))
    rate = (1 / variance + np.square(latent) - 1 + np.log(variance)).sum(axis=1) / 2
    rng = np.random.default_rng(seed)
    drawn = scores * share + np.sqrt(share) * rng.normal(size=scores.shape)
    mean, draw = (values @ basis for values in (scores * share, drawn))
    draw = draw + rng.normal(size=draw.shape)
    images = (pixels(centre + sd * values, task.judged.shape) for values in (mean, draw))
    return Found(nats, float(rate.mean()), *images)


def coefficients(images: np.ndarray) -> np.ndarray:
    """Return cosine coefficients, ``(n_images, n_pixels)``. The transform is a rotation."""
    return fft.dctn(images.astype(float), axes=(2, 3), norm="ortho").reshape(len(images), -1)


def pixels(values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    return fft.idctn(values.reshape(shape), axes=(2, 3), norm="ortho")


def betavi(
    likelihood: str,
    rate: float | None = None,
    *,
    has_pca: bool = True,
    keep_best: bool = True,
    **options: Any,
) -> Callable[..., Found]:
    """Return a row of a trained model, with a target of the rate in nats if there is one."""

    def fit(task: Task, seed: int) -> Found:
        scvi.settings.seed = seed
        torch.set_num_threads(1)
        adata, judged = (AnnData(obsm={"image": x}) for x in (task.fit, task.judged))
        BetaVI.setup_anndata(adata, image_key="image")
        model = BetaVI(adata, n_latent=N_LATENT, gene_likelihood=likelihood, **options)
        n_trained = int(FITTED_SHARE * adata.n_obs)
        parts = np.split(np.arange(adata.n_obs), [n_trained])
        rival = at_components if has_pca else no_rival
        with mock.patch("betavi.train.start.at_components", rival):
            model.train(
                target_rate=rate, keep_best=keep_best, enable_progress_bar=False,
                accelerator="cpu", datasplitter_kwargs={"external_indexing": parts},
            )  # fmt: skip
        curve = model.rate_distortion(adata=judged, n_samples=20, show_progress=False).iloc[0]
        model.denoise(judged, show_progress=False)
        return Found(
            np.array([-curve["elbo"]]), curve["rate"], judged.obsm["denoised"], drawn(model, judged)
        )

    return fit


def no_rival(*_: Any) -> None:
    """Return no state to compare with."""


@torch.inference_mode()
def drawn(model: BetaVI, judged: AnnData) -> np.ndarray:
    """Return a draw of each image from its posterior and likelihood, of the images' shape."""
    adata = model._validate_anndata(judged)
    blocks = model.minibatches(adata, np.arange(adata.n_obs), 64)
    px = [model.module.forward(tensors)[1]["px"]["X"].sample() for tensors in blocks]
    return torch.cat(px).numpy().reshape(judged.obsm["image"].shape)


def image_itself(task: Task, seed: int) -> Found:  # noqa: ARG001  # nothing is drawn
    """Return the judged images as draws, without a probability."""
    return Found(np.array([np.nan]), np.nan, task.judged, task.judged)


def length(images: np.ndarray) -> float:
    """Return the extent of connected bright regions in pixels: mean over pixels, median over images."""
    extents = []
    for image in images[:, 0].astype(float):
        smooth = ndimage.gaussian_filter(image, 1)
        regions, _ = ndimage.label(smooth > np.quantile(smooth, DARK_SHARE), np.ones((3, 3)))
        sizes = np.bincount(regions.ravel())[1:]
        sides = [max(y.stop - y.start, x.stop - x.start) for y, x in ndimage.find_objects(regions)]
        extents.append(np.average(sides, weights=sizes))
    return float(np.median(extents))


ROWS: dict[str, Callable[[Task, int], Found | None]] = {
    "image without a model": image_itself,
    "expected image": expected_image,
    "mean image": pca(0),
    "mean image, bands": pca(0, BANDS_PER_OCTAVE),
}
for number in (1, 2, 8):
    ROWS[f"mean image, bands {number}"] = pca(0, number)
for number in COMPONENTS:
    ROWS[f"PCA {number}"] = pca(number)
    ROWS[f"PCA {number}, bands"] = pca(number, BANDS_PER_OCTAVE)
for name in ("normal_image", "band_normal", "multiscale_normal"):
    ROWS[f"BetaVI, {name}"] = betavi(name)
    ROWS[f"BetaVI, {name}, no PCA"] = betavi(name, has_pca=False)
    ROWS[f"BetaVI, {name}, last epoch"] = betavi(name, keep_best=False)
    ROWS[f"BetaVI, {name}, gene-cell"] = betavi(name, dispersion="gene-cell")
    for nats in RATES:
        ROWS[f"BetaVI, {name}, at {nats} nats"] = betavi(name, nats)


def scores_of(task: Task, found: Found) -> dict[str, float]:
    clean = task.judged if task.expected is None else task.expected
    of_mean, of_draw = (ridges(clean, images) for images in (found.mean, found.draw))
    return {
        "bits": float(bits_per_pixel(found.nats, task.judged.shape[1:]).mean()),
        "rate": found.rate,
        "recall": of_mean.recall_at(PRECISION),
        "AP": of_mean.average_precision,
        "draw AP": of_draw.average_precision,
        "false": 1 - of_draw.precision,
        "length": length(found.draw),
        "skew": float(np.median(stats.skew(found.draw[:, 0].reshape(len(found.draw), -1), axis=1))),
    }


def power_of(task: Task, found: Found) -> dict[str, float]:
    """Return the power by band, from coarse to fine."""
    rows = {}
    for name, images, column in (
        ("mean", found.mean, "signal_ratio"),
        ("draw", found.draw, "ratio"),
        ("corr", found.mean, "correlation"),
    ):
        table = power_ratio(task.judged, images, task.noise_sd)
        rows |= {f"{name} {band}": x for band, x in zip(table["band"], table[column], strict=True)}
    return rows


def main(*words: str) -> None:
    quietly(1)
    seeds = [int(word) for word in words if word.isdigit()] or SEEDS
    print(processor(), "one thread")
    scores, powers = [], []
    for name in [name for name in DATA if name in words] or list(DATA):
        for seed in seeds:
            task = DATA[name](seed)
            print(f"{name}: {len(task.fit)} images to fit, {len(task.judged)} to judge", flush=True)
            for row in [row for row in ROWS if row in words] or list(ROWS):
                start = time.perf_counter()
                found = ROWS[row](task, seed)
                if found is None:
                    continue
                key = {"data": name, "row": row}
                seconds = time.perf_counter() - start
                scores.append(key | scores_of(task, found) | {"s": seconds})
                powers.append(key | power_of(task, found))
                print(seed, scores[-1], flush=True)
    for rows, digits in ((scores, 3), (powers, 2)):
        table = pd.DataFrame(rows).groupby(["data", "row"], sort=False).median()
        print(f"\nMedians over seeds {list(seeds)}:\n{table.round(digits).to_string()}")


if __name__ == "__main__":
    main(*sys.argv[1:])
