from __future__ import annotations

import numpy as np
import pytest

from betavi.datasets import crops
from tests.real_images import real_image  # noqa: F401 - fixture


@pytest.fixture
def numbered():
    """An image in which each pixel has a number of its own."""
    return np.arange(60 * 100).reshape(60, 100)


def test_crops_are_the_pixels_at_their_place(numbered):
    adata = crops(numbered, size=20, stride=7)
    for crop, (row, column) in zip(
        adata.obsm["image"][:, 0], adata.obs[["row", "column"]].to_numpy(), strict=True
    ):
        np.testing.assert_array_equal(crop, numbered[row : row + 20, column : column + 20])
    assert adata.obsm["image"].dtype == numbered.dtype
    assert adata.obs_names[0] == "r0_c0"
    assert adata.obs_names.is_unique


@pytest.mark.parametrize(
    ("size", "stride", "split"), [(20, 3, 0.5), (10, None, 0.77), (33, 1, 0.4)]
)
def test_no_pixel_is_in_both_sets(numbered, size, stride, split):
    adata = crops(numbered, size, stride, split=split)
    pixels = {
        name: set(np.unique(adata[adata.obs["set"] == name].obsm["image"]))
        for name in ("training", "held_out")
    }
    assert not pixels["training"] & pixels["held_out"]
    edge = round(split * 100)
    assert max(pixel % 100 for pixel in pixels["training"]) < edge
    assert min(pixel % 100 for pixel in pixels["held_out"]) == edge


def test_without_a_stride_each_pixel_is_in_one_crop(numbered):
    image = crops(numbered, 10).obsm["image"]
    assert len(np.unique(image)) == image.size == numbered.size


def test_channels_are_cut_alike(numbered):
    adata = crops(np.stack([numbered, -numbered, 2 * numbered]), 16)
    image = adata.obsm["image"]
    assert image.shape[1:] == (3, 16, 16)
    np.testing.assert_array_equal(image[:, 1], -image[:, 0])


def test_empty_crops_are_left_out():
    """Noise has a contrast of 4.65 standard deviations, and a bright square has more."""
    rng = np.random.default_rng(0)
    image = rng.normal(100, 2, (64, 128))
    image[10:20, 10:20] += 50
    image[40:50, 70:80] += 50
    everything = crops(image, 32)
    assert everything.obs["contrast"].median() == pytest.approx(4.65 * 2, rel=0.1)
    found = crops(image, 32, min_contrast=25)
    assert list(found.obs_names) == ["r0_c0", "r32_c64"]
    assert list(found.obs["set"]) == ["training", "held_out"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image": np.zeros(9)}, r"`image` has shape \(9,\). Pass \(height, width\) or"),
        ({"image": np.zeros((0, 9))}, "`image` has shape"),
        ({"image": np.full((64, 64), "a")}, "`image` has type <U1. Pass numbers"),
        ({"size": 0}, "size must be a whole number"),
        ({"stride": 0}, "stride must be a whole number"),
        (
            {"size": 55},
            "`size` is 55 pixels, but the image has 60 rows, and 50 columns on the left",
        ),
        ({"split": 1.0}, "`split` must be above 0 and below 1, not 1.0"),
        ({"min_contrast": 1e9}, "The set 'training' has no crop with a contrast of at least"),
    ],
)
def test_bad_input_is_refused(numbered, change, message):
    with pytest.raises(ValueError, match=message):
        crops(**({"image": numbered, "size": 20} | change))


def test_missing_pixels_are_named():
    image = np.zeros((40, 80))
    image[7, 9] = np.nan
    with pytest.raises(ValueError, match=r"1 pixels that are not finite, .* in row 7, column 9"):
        crops(image, 20)


def test_real_mitochondria_are_cut_into_full_and_empty_crops(real_image):  # noqa: F811
    image = real_image("BPAE_mito.tif")
    everything, full = crops(image, 64, 32), crops(image, 64, 32, min_contrast=200)
    assert everything.n_obs > 2 * full.n_obs
    assert set(full.obs["set"]) == {"training", "held_out"}
    # the corners of the image have no cell
    assert "r0_c0" in everything.obs_names
    assert "r0_c0" not in full.obs_names
