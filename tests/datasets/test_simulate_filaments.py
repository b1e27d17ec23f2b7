from __future__ import annotations

import mudata
import numpy as np
import pytest
from scipy import ndimage, optimize, stats

from betavi.datasets import filaments, simulate_filaments
from betavi.metrics import power_ratio


def test_shapes_types_and_names():
    mdata = simulate_filaments(n_cells=30, size=24, n_genes=7, n_factors=6)
    image, rna = mdata["image"], mdata["rna"]
    assert image.shape == (30, 0)
    assert image.obsm["image"].shape == (30, 1, 24, 24)
    assert image.obsm["image"].dtype == np.uint16
    assert rna.shape == (30, 7)
    assert rna.X.dtype == np.int32
    assert mdata.obsm["z"].shape == (30, 6)
    assert list(image.obs_names) == list(rna.obs_names) == list(mdata.obs_names)
    assert list(simulate_filaments(n_cells=2, size=24, n_genes=0).mod) == ["image"]


def test_a_file_returns_the_same_images(tmp_path):
    mdata = simulate_filaments(n_cells=10, size=16, n_genes=3)
    mdata.write(tmp_path / "cells.h5mu")
    read = mudata.read_h5mu(tmp_path / "cells.h5mu")["image"]
    assert read.obsm["image"].dtype == np.uint16
    np.testing.assert_array_equal(read.obsm["image"], mdata["image"].obsm["image"])
    assert read.uns["camera"]["bits"] == 12


def test_the_same_seed_gives_the_same_cells():
    first, again, other = (
        simulate_filaments(20, 16, 5, seed=seed)["image"].obsm["image"] for seed in (3, 3, 4)
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_genes_do_not_depend_on_the_images():
    one, two = (simulate_filaments(20, size, 5)["rna"] for size in (16, 24))
    assert (one.X != two.X).nnz == 0


def test_camera_counts_have_the_mean_and_the_noise_of_the_truth():
    obsm = simulate_filaments(n_cells=300, size=32, n_genes=0)["image"].obsm
    score = (obsm["image"] - obsm["expected_image"]) / obsm["noise_sd"]
    assert score.mean() == pytest.approx(0, abs=0.01)
    assert score.std() == pytest.approx(1, abs=0.01)
    # also where there is much light
    bright = obsm["expected_image"] > np.quantile(obsm["expected_image"], 0.9)
    assert score[bright].std() == pytest.approx(1, abs=0.02)


def test_noise_of_neighbouring_pixels_is_independent():
    obsm = simulate_filaments(n_cells=100, size=32, n_genes=0)["image"].obsm
    score = (obsm["image"] - obsm["expected_image"]) / obsm["noise_sd"]
    assert abs((score[..., 1:] * score[..., :-1]).mean()) < 0.01


def test_the_camera_saturates():
    image = simulate_filaments(20, 24, 0, bits=8, offset=0.0, brightness=1e4)["image"]
    assert image.obsm["image"].max() == 255
    assert image.obsm["expected_image"].max() > 255


@pytest.mark.parametrize("length", [10.0, 40.0])
def test_curves_are_worm_like_chains(length):
    """Mean squared distance of the ends, for a walk of the direction in two dimensions."""
    rng, persistence = np.random.default_rng(0), 8.0
    n_steps = int(length / filaments.STEP)
    u = filaments.Layout(rng, (50, n_steps, 5), share=0.0).draw(rng, rng.normal(size=(100, 5)))
    points = filaments.curves(u, 64, np.full(100, persistence), np.full(100, n_steps))
    squared = np.square(points[..., -1] - points[..., 0]).sum(axis=0).mean()
    length, reach = length - filaments.STEP, 2 * persistence
    true = 2 * reach * length - 2 * reach**2 * (1 - np.exp(-length / reach))
    assert squared == pytest.approx(true, rel=0.05)


def test_the_middle_of_a_curve_is_at_a_uniform_place():
    rng = np.random.default_rng(0)
    u = filaments.Layout(rng, (20, 30, 5), share=0.0).draw(rng, rng.normal(size=(100, 5)))
    points = filaments.curves(u, 32, np.full(100, 9.0), np.full(100, 20))
    middles = points[..., 10].ravel() / 31
    assert stats.kstest(middles, "uniform").pvalue > 0.001


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_the_layout_is_standard_normal_for_each_share(share):
    rng = np.random.default_rng(1)
    u = filaments.Layout(rng, (200, 20, 8), share).draw(rng, rng.normal(size=(300, 8)))
    assert u.var() == pytest.approx(1, rel=0.03)
    within = u.var(axis=0).mean()
    # the constant part does not vary over cells
    assert within == pytest.approx(1 - share / 2, rel=0.03)


def test_light_is_the_length_of_the_curves():
    """Half of the light of a line along the edge of a pixel row is in the next row."""
    points = np.stack([np.full(20, 5.5), 4 + 0.5 * np.arange(20)])[:, None, None]
    image = filaments.drawn(points, np.ones((1, 1, 20), bool), 32)
    assert image.sum() == pytest.approx(20 * filaments.STEP)
    assert image[0, 5].sum() == pytest.approx(image[0, 6].sum())
    rows, columns = ndimage.center_of_mass(image[0])
    assert (rows, columns) == pytest.approx((5.5, 4 + 0.5 * 9.5))
    blurred = filaments.seen(image, np.array([1.0]), "gaussian", 3.0)
    assert blurred.sum() == pytest.approx(image.sum(), rel=1e-6)


@pytest.mark.parametrize("psf", filaments.TRANSFER)
def test_the_point_spread_function_has_its_width(psf):
    """A point becomes a spot that falls to half of its maximum at half of the width."""
    image = np.zeros((1, 101, 101))
    image[0, 50, 50] = 1
    spot = filaments.seen(image, np.zeros(1), psf, 12.0)[0]
    assert spot.sum() == pytest.approx(1, rel=0.01)
    line = spot[50, 50:] / spot[50, 50]
    half = optimize.brentq(lambda x: np.interp(x, np.arange(51), line) - 0.5, 0, 12)
    assert half == pytest.approx(6, rel=0.02)


def test_a_gaussian_spot_is_that_of_scipy():
    image = np.zeros((1, 64, 64))
    image[0, 30, 33] = 1
    sd = 3.0 * filaments.SDS_PER_WIDTH
    expected = ndimage.gaussian_filter(image, (0, sd, sd), truncate=8)
    found = filaments.seen(image, np.zeros(1), "gaussian", 3.0)
    # scipy samples the kernel, which differs from the blur of frequencies a little
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_an_airy_pattern_has_a_dark_ring():
    """The first zero of an Airy pattern is at 1.186 times its width."""
    image = np.zeros((1, 129, 129))
    image[0, 64, 64] = 1
    spot = filaments.seen(image, np.zeros(1), "airy", 20.0)[0, 64, 64:]
    assert spot[24] / spot[0] < 3e-3
    assert spot[:40].argmin() == pytest.approx(1.186 * 20, abs=1.5)


def test_factors_set_the_traits_and_the_light():
    mdata = simulate_filaments(n_cells=400, size=32, n_genes=0, seed=1)
    obs, z = mdata["image"].obs, mdata.obsm["z"]
    for number, trait in enumerate(("number", "length", "persistence", "thickness", "brightness")):
        assert stats.spearmanr(obs[trait], z[:, number])[0] > 0.95
    light = mdata["image"].obsm["expected_image"].mean(axis=(1, 2, 3))
    assert stats.spearmanr(light, obs["number"] * obs["length"] * obs["brightness"])[0] > 0.7


def test_factors_set_the_layout_as_far_as_its_share():
    """Cells that have the same factors have the same image, if nothing else is random."""
    rng = np.random.default_rng(0)
    z = np.repeat(rng.normal(size=(1, 5)), 2, axis=0)
    same = filaments.Layout(rng, (4, 10, 5), 1.0).draw(rng, z)
    np.testing.assert_allclose(same[0], same[1])
    free = filaments.Layout(rng, (4, 10, 5), 0.0).draw(rng, z)
    assert abs(np.corrcoef(free[0].ravel(), free[1].ravel())[0, 1]) < 0.5


def test_rna_is_of_the_same_factors():
    mdata = simulate_filaments(n_cells=500, size=16, n_genes=60)
    rna, z = mdata["rna"], mdata.obsm["z"]
    logs = np.log1p(rna.X.toarray())
    design = np.column_stack([np.ones(len(z)), z])
    fit = np.linalg.lstsq(design, logs, rcond=None)[0][1:]
    # log counts flatten rare genes, so only the common ones are compared
    common = np.asarray(rna.X.mean(axis=0)).ravel() > 5
    truth = rna.varm["loadings"] - rna.varm["loadings"].mean(axis=0)
    assert np.corrcoef(fit.T[common].ravel(), truth[common].ravel())[0, 1] > 0.7


def test_the_finest_band_is_mostly_noise_and_the_others_are_signal():
    obsm = simulate_filaments(n_cells=100, n_genes=0)["image"].obsm
    table = power_ratio(obsm["image"], obsm["expected_image"], obsm["noise_sd"]).set_index("band")
    assert (table.loc[[5, 4, 3, 2], "signal"] > 10 * table.loc[[5, 4, 3, 2], "noise"]).all()
    assert table.loc[1, "signal"] < table.loc[1, "noise"]


@pytest.mark.parametrize(
    "kwargs",
    [
        {"n_cells": 0}, {"size": 4}, {"n_factors": 4}, {"layout_share": 1.2}, {"psf_width": 0.0},
        {"brightness": -1.0}, {"background": -1.0}, {"read_noise": float("nan")}, {"gain": 0.0},
        {"bits": 17}, {"library_size": 0.0}, {"n_genes": -1},
    ],
)  # fmt: skip
def test_numbers_out_of_range_are_refused(kwargs):
    ((name, value),) = kwargs.items()
    with pytest.raises(ValueError, match=rf"{name}`? must be .*, not {value}"):
        simulate_filaments(**kwargs)


def test_an_unknown_point_spread_function_is_refused():
    with pytest.raises(ValueError, match="psf must be one of 'gaussian', 'airy', not 'box'"):
        simulate_filaments(psf="box")
