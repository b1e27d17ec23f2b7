"""Bits per pixel of likelihoods of images, on held-out crops of a fluorescence image.

Run with ``BETAVI_DATA_DIR=<folder> python -m benchmarks.image_likelihoods [seed ...]``. Crops of the left part of
``images/BPAE_mito.tif`` train the models. Crops of the right part judge them.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import scvi
import torch
from anndata import AnnData
from PIL import Image

from betavi import BetaVI

SIDE, BORDER = 64, 640
STRIDES = {"left": 24, "right": 32}
TRAINING = {
    "max_epochs": 30, "batch_size": 64, "enable_progress_bar": False, "accelerator": "cpu",
}  # fmt: skip
MODELS = {
    "normal_image": {"gene_likelihood": "normal_image"},
    "band_normal": {"gene_likelihood": "band_normal"},
    "normal_image, gene-cell": {"gene_likelihood": "normal_image", "dispersion": "gene-cell"},
    "band_normal, gene-cell": {"gene_likelihood": "band_normal", "dispersion": "gene-cell"},
}


def crops(part: str) -> np.ndarray:
    """Return crops of one part of the image, ``(n_crops, 1, height, width)``."""
    file = Path(os.environ["BETAVI_DATA_DIR"]) / "images" / "BPAE_mito.tif"
    columns = slice(None, BORDER) if part == "left" else slice(BORDER, None)
    pixels = np.asarray(Image.open(file))[:, columns]
    rows, columns = (range(0, n - SIDE + 1, STRIDES[part]) for n in pixels.shape)
    return np.stack([[pixels[y : y + SIDE, x : x + SIDE]] for y in rows for x in columns])


def scored(seed: int, **options: str) -> dict[str, float]:
    """Train a model on the left part, and return its scores on the right part."""
    scvi.settings.seed = seed
    left, right = (AnnData(obsm={"image": crops(part)}) for part in STRIDES)
    BetaVI.setup_anndata(left, image_key="image")
    model = BetaVI(left, n_latent=32, **options)
    start = time.process_time()
    model.train(**TRAINING)
    seconds = time.process_time() - start
    loss = -float(model.get_elbo(right))
    distortion = float(model.get_reconstruction_error(right)["reconstruction_loss"])
    unit = np.log(2) * SIDE**2
    return {
        "bits per pixel": loss / unit, "distortion": distortion / unit,
        "rate, nats": loss - distortion, "CPU seconds": seconds,
    }  # fmt: skip


def main(*seeds: str) -> None:
    logging.disable(logging.INFO)
    torch.set_num_threads(1)
    print(f"{len(crops('left'))} crops for training, {len(crops('right'))} held-out crops")
    for name, options in MODELS.items():
        table = pd.DataFrame([scored(int(seed), **options) for seed in seeds or ("0", "1", "2")])
        print(f"{name}: mean and standard deviation over {len(table)} seed(s)", flush=True)
        print(table.agg(["mean", "std"]).round(3).to_string(), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
