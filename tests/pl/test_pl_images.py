from __future__ import annotations

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
from scipy import ndimage

from betavi import pl
from betavi.datasets import simulate_filaments
from betavi.metrics import power_ratio

mpl.use("Agg")


@pytest.fixture
def sets():
    obsm = simulate_filaments(n_cells=30, size=32, n_genes=0)["image"].obsm
    blurred = ndimage.gaussian_filter(obsm["image"].astype(float), (0, 0, 1.5, 1.5))
    yield {"truth": obsm["image"], "expected": obsm["expected_image"], "blurred": blurred}
    plt.close("all")


def test_images_are_in_rows_and_sets_in_columns(sets):
    axes = pl.images(sets, indices=[4, 7])
    assert axes.shape == (3, 3)
    assert [ax.get_title() for ax in axes[0]] == list(sets)
    assert [ax.get_ylabel() for ax in axes[:2, 0]] == ["image 4", "image 7"]
    for row, i in zip(axes, (4, 7), strict=False):
        for ax, values in zip(row, sets.values(), strict=True):
            np.testing.assert_array_equal(ax.images[0].get_array(), values[i, 0])


def test_a_row_has_the_grey_scale_of_its_true_image(sets):
    axes = pl.images(sets)
    for row in axes[:-1]:
        limits = {ax.images[0].get_clim() for ax in row}
        assert len(limits) == 1
        truth = row[0].images[0].get_array()
        assert limits == {tuple(np.quantile(truth, [0.005, 0.995]))}


def test_bright_pixels_are_dark_in_print(sets):
    ax = pl.images(sets)[0, 0]
    image = ax.images[0]
    low, high = image.cmap(image.norm(image.get_clim()))[:, :3].mean(axis=1)
    assert low > 0.95
    assert high < 0.05


def test_the_images_are_dim_medium_and_bright(sets):
    axes = pl.images(sets, n_images=3)
    shown = [ax.images[0].get_array().var() for ax in axes[:-1, 0]]
    assert shown == sorted(shown)
    variances = sets["truth"].astype(float).var(axis=(1, 2, 3))
    assert shown[1] == pytest.approx(np.median(variances), rel=0.2)


def test_the_last_row_has_the_power_of_the_metric(sets):
    axes = pl.images(sets, noise_sd=10.0)
    truth, noise = (line.get_ydata() for line in axes[-1, 0].lines)
    table = power_ratio(sets["truth"], sets["blurred"], 10.0)
    np.testing.assert_allclose(truth, table["truth"])
    np.testing.assert_allclose(noise, 100)
    lines = {line.get_label(): line.get_ydata() for line in axes[-1, 2].lines}
    np.testing.assert_allclose(
        lines["with noise (draws)"], table["ratio"].clip(0.01, 10), rtol=1e-6
    )
    assert [text.get_text() for text in axes[-1, 0].get_xticklabels()] == [
        ">16",
        "8-16",
        "4-8",
        "<4",
    ]


def test_another_channel_is_drawn_with_its_noise(sets):
    both = {name: np.concatenate([values, 3 * values], axis=1) for name, values in sets.items()}
    sd = np.array([1.0, 5.0])[:, None, None] * np.ones((30, 2, 32, 32))
    axes = pl.images(both, indices=[2], channel=1, noise_sd=sd)
    np.testing.assert_allclose(axes[-1, 0].lines[1].get_ydata(), 25)
    np.testing.assert_array_equal(axes[0, 0].images[0].get_array(), 3 * sets["truth"][2, 0])


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"sets": object()}, TypeError, "`sets` is of type object. Pass a dictionary of arrays"),
        ({"sets": {"truth": np.zeros((2, 1, 8, 8))}}, ValueError, "at least one other set"),
        ({"sets": {"a": np.zeros((2, 8, 8)), "b": 1}}, ValueError, r"`sets\['a'\]` has shape"),
        ({"indices": [30]}, IndexError, "`indices` must be between 0 and 29"),
        ({"channel": 1}, IndexError, "`channel` must be between 0 and 0, not 1"),
        ({"n_images": 0}, ValueError, "n_images must be a whole number"),
    ],
)
def test_bad_input_is_refused(sets, change, error, message):
    with pytest.raises(error, match=message):
        pl.images(**({"sets": sets} | change))
