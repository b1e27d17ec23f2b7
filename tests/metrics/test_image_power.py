from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import ndimage

from betavi.datasets import crops, simulate_filaments
from betavi.metrics import bits_per_pixel, power_ratio
from betavi.metrics.image_power import bands_of, estimated_noise, radial_frequency
from tests.real_images import real_image  # noqa: F401 - fixture

RNG = np.random.default_rng(0)


def blurred(images, sd):
    return ndimage.gaussian_filter(images.astype(float), (0, 0, sd, sd), truncate=8)


@pytest.fixture
def filaments():
    return simulate_filaments(n_cells=80, n_genes=0, seed=1)["image"].obsm


@pytest.mark.parametrize("shape", [(64, 64), (32, 48), (17, 23)])
def test_white_noise_has_its_variance_in_each_band(shape):
    noise = RNG.normal(0, 3, (400, 2, *shape))
    table = power_ratio(noise, noise)
    np.testing.assert_allclose(table["truth"], 9, rtol=0.1)
    np.testing.assert_allclose(table["noise"], 9, rtol=0.05)
    assert not table["has_signal"].any()
    assert sorted(table["channel"].unique()) == [0, 1]


def test_noise_that_depends_on_the_place_is_white_too():
    """Its power is the mean variance, whatever the place."""
    sd = np.linspace(1, 5, 32) * np.ones((1, 1, 32, 1))
    noise = sd * RNG.normal(size=(500, 1, 32, 32))
    table = power_ratio(noise, noise, noise_sd=sd)
    np.testing.assert_allclose(table["truth"], np.square(sd).mean(), rtol=0.1)
    np.testing.assert_allclose(table["noise"], np.square(sd).mean())


def test_the_power_of_all_bands_is_the_variance_of_the_image():
    images = RNG.normal(size=(20, 1, 32, 24)).cumsum(axis=2).cumsum(axis=3)
    table = power_ratio(images, images)
    bands = bands_of(radial_frequency((32, 24)), 24)
    sizes = np.array([(bands == number).sum() for number in table["band"]])
    assert sizes.sum() == 32 * 24 - 1
    total = (sizes * table["truth"]).sum() / (32 * 24)
    assert total == pytest.approx(images.var(axis=(2, 3)).mean())


@pytest.mark.parametrize(("period", "band"), [(2, 1), (3, 1), (6, 2), (12, 3), (24, 4), (48, 5)])
def test_a_wave_is_in_the_band_of_its_period(period, band):
    images = np.cos(2 * np.pi * np.arange(96) / period) * np.ones((1, 1, 96, 1))
    table = power_ratio(images, images).set_index("band")
    bands = bands_of(radial_frequency((96, 96)), 96)
    energy = table["truth"] * [(bands == number).sum() for number in table.index]
    assert energy.loc[band] > 0.9 * energy.sum()
    assert table.loc[band, "low"] <= 1 / period <= table.loc[band, "high"]


@pytest.mark.parametrize("sd", [0.7, 1.0, 2.0])
def test_a_blur_has_its_transfer_function(sd):
    """Noise after a normal blur has a known power at each frequency."""
    noise = RNG.normal(size=(300, 1, 64, 64))
    # scipy reflects at the edge, as cosines do, so the law is exact for its kernel
    reach = np.arange(-20, 21)
    kernel = np.exp(-np.square(reach / sd) / 2)
    kernel /= kernel.sum()
    frequency = radial_frequency((64, 64))
    rows = np.array([(kernel * np.cos(2 * np.pi * reach * k / 128)).sum() for k in range(64)])
    transfer = np.square(rows[:, None] * rows)
    bands = bands_of(frequency, 64)
    images = ndimage.gaussian_filter(noise, (0, 0, sd, sd), truncate=20 / sd)
    table = power_ratio(noise, images, noise_sd=0.0)
    expected = np.array([transfer[bands == number].mean() for number in table["band"]])
    np.testing.assert_allclose(table["ratio"], expected, rtol=0.05, atol=1e-6)
    # and the band between 1/8 and 1/4 follows the formula of a continuous blur
    law = np.exp(-4 * np.pi**2 * sd**2 * np.square(frequency[bands == 2])).mean()
    assert table.set_index("band").loc[2, "ratio"] == pytest.approx(law, rel=0.1)


def test_a_scaled_reconstruction_has_the_square_of_its_scale(filaments):
    truth = filaments["image"].astype(float)
    table = power_ratio(truth, 0.5 * truth + 7)
    np.testing.assert_allclose(table["ratio"], 0.25)
    np.testing.assert_allclose(table["correlation"], 1)
    np.testing.assert_allclose(table["ratio_error"], 0, atol=1e-10)


def test_the_truth_without_noise_has_the_power_of_the_signal(filaments):
    table = power_ratio(filaments["image"], filaments["expected_image"], filaments["noise_sd"])
    assert table["has_signal"].all()
    np.testing.assert_allclose(table["signal_ratio"], 1, rtol=0.05)
    # the finest band is mostly noise, which the truth has and its expectation lacks
    assert table["ratio"].iloc[-1] < 0.5


def test_noise_is_estimated_from_the_finest_frequencies(filaments):
    true = np.sqrt(np.square(filaments["noise_sd"]).mean())
    assert estimated_noise(filaments["image"]) == pytest.approx(true, rel=0.03)


def test_bands_below_the_noise_have_no_signal(filaments):
    noise = RNG.normal(0, 60, filaments["image"].shape)
    table = power_ratio(filaments["expected_image"] + noise, filaments["expected_image"], 60.0)
    assert table.set_index("band")["has_signal"].to_dict() == {
        5: True,
        4: True,
        3: True,
        2: True,
        1: False,
    }
    assert table["signal_ratio"].isna().tolist() == [False] * 4 + [True]


def test_stronger_blurs_lose_more_power(filaments):
    truth = filaments["image"]
    mild, strong = (power_ratio(truth, blurred(truth, sd))["ratio"] for sd in (0.7, 2.0))
    assert (strong < mild).all()
    assert (mild < 1).all()


def test_only_the_correlation_notices_other_images(filaments):
    truth = filaments["expected_image"]
    table = power_ratio(truth, np.roll(truth, 1, axis=0))
    np.testing.assert_allclose(table["ratio"], 1)
    assert (table["correlation"].abs() < 0.5).all()
    near = power_ratio(truth, np.roll(truth, 1, axis=3))["correlation"]
    assert near.is_monotonic_decreasing


def test_the_error_of_the_ratio_is_that_of_new_images():
    """Over many samples of images, the ratio varies as its standard error says."""
    ratios, errors = [], []
    for _ in range(200):
        size = np.exp(0.2 * RNG.normal(size=(60, 1, 1, 1)))
        truth = size * RNG.normal(size=(60, 1, 8, 8))
        table = power_ratio(truth, truth * np.exp(0.2 * RNG.normal(size=(60, 1, 1, 1))))
        ratios.append(table["ratio"])
        errors.append(table["ratio_error"])
    np.testing.assert_allclose(np.std(ratios, axis=0), np.mean(errors, axis=0), rtol=0.15)


def test_blocks_leave_no_seam(filaments, monkeypatch):
    truth, other = filaments["image"], filaments["expected_image"]
    whole = power_ratio(truth, other)
    monkeypatch.setattr("betavi._blocks.SCORED_IMAGES", 7)
    pd.testing.assert_frame_equal(power_ratio(truth, other), whole)


def test_constant_images_have_no_ratio():
    table = power_ratio(np.ones((2, 1, 8, 8)), np.zeros((2, 1, 8, 8)))
    assert table["ratio"].isna().all()
    assert not table["has_signal"].any()


@pytest.mark.parametrize(
    ("truth", "reconstruction", "noise", "message"),
    [
        (np.zeros((3, 9, 9)), np.zeros((3, 9, 9)), None, r"`truth` has shape \(3, 9, 9\)"),
        (np.zeros((3, 1, 9, 9)), np.zeros((2, 1, 9, 9)), None, "Pass the same images"),
        (np.zeros((3, 1, 9, 4)), np.zeros((3, 1, 9, 4)), None, "images of 9 by 4 pixels"),
        (np.zeros((3, 1, 9, 9)), np.full((3, 1, 9, 9), np.nan), None, "`reconstruction` has 3 images"),
        (np.zeros((3, 1, 9, 9)), np.zeros((3, 1, 9, 9)), np.zeros(4), r"`noise_sd` has shape \(4,\)"),
        (np.zeros((3, 1, 9, 9)), np.zeros((3, 1, 9, 9)), -1.0, "`noise_sd` must be finite"),
    ],
)  # fmt: skip
def test_bad_input_is_refused(truth, reconstruction, noise, message):
    with pytest.raises(ValueError, match=message):
        power_ratio(truth, reconstruction, noise)


def test_real_mitochondria_have_signal_in_all_but_the_finest_band(real_image):  # noqa: F811
    images = crops(real_image("BPAE_mito.tif"), 64, min_contrast=200).obsm["image"]
    table = power_ratio(images, blurred(images, 1.5)).set_index("band")
    assert table.loc[[5, 4, 3, 2], "has_signal"].all()
    assert table.loc[1, "signal"] < table.loc[1, "noise"]
    assert table["ratio"].is_monotonic_decreasing


def test_bits_of_a_pixel():
    """The bits of a uniform integer of 8 bits, and of a normal value in steps of 1."""
    assert bits_per_pixel(3 * 5 * 7 * np.log(256), (3, 5, 7)) == pytest.approx(8)
    values = RNG.normal(0, 20, (50, 1, 8, 8)).round()
    nats = (np.square(values / 20) / 2 + np.log(20) + np.log(2 * np.pi) / 2).sum(axis=(1, 2, 3))
    bits = bits_per_pixel(nats, values.shape[1:])
    assert bits.shape == (50,)
    assert bits.mean() == pytest.approx(np.log2(20 * np.sqrt(2 * np.pi * np.e)), rel=0.01)
    with pytest.raises(ValueError, match="`shape` must have numbers of at least 1"):
        bits_per_pixel(1.0, (1, 0, 8))
