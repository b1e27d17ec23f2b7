from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from betavi.datasets import crops, simulate_filaments
from betavi.metrics import ridges
from betavi.metrics._ridge_filter import ridge_points
from tests.real_images import real_image  # noqa: F401 - fixture

RNG = np.random.default_rng(0)
SCALES = (1.5, 2.0, 3.0)


def blurred(images, sd):
    return ndimage.gaussian_filter(images.astype(float), (0, 0, sd, sd))


def line(angle, offset=0.0, sd=1.5, size=64):
    """Return an image of one line with a normal profile, and the distance of each pixel from it."""
    row, column = np.mgrid[:size, :size] - (size - 1) / 2
    distance = row * np.cos(angle) - column * np.sin(angle) - offset
    return np.exp(-np.square(distance / sd) / 2), distance


@pytest.fixture(scope="module")
def filaments():
    return simulate_filaments(n_cells=60, n_genes=0, seed=2)["image"].obsm


@pytest.mark.parametrize("angle", np.linspace(0, np.pi, 13))
@pytest.mark.parametrize("offset", [0.0, 3.3])
def test_a_line_is_found_within_a_pixel(angle, offset):
    image, distance = line(angle, offset)
    strength = ridge_points(image[None], SCALES)[0]
    inside = np.zeros_like(distance, bool)
    inside[6:-6, 6:-6] = True
    points = (strength > 0.3 * strength.max()) & inside
    assert (np.abs(distance[points]) <= 1).all()
    # the whole line is found, with one point for each row or column, or two where it has steps
    true = np.nonzero(inside & (np.abs(distance) <= 0.7))
    length = max(len(np.unique(places)) for places in true)
    assert 0.9 <= points.sum() / length <= 2
    near = ndimage.binary_dilation(points, iterations=2)
    assert near[inside & (np.abs(distance) <= 0.5)].all()


def test_the_strength_is_the_curvature_of_the_blurred_line():
    """A normal profile with unit height stays normal after a blur, and its curvature is known."""
    sd, scale = 2.0, 1.5
    image, distance = line(0.0, 0.5, sd)
    strength = ridge_points(image[None], [scale])[0]
    centre = strength[np.abs(distance) < 0.1]
    width = np.hypot(sd, scale)
    assert centre[10:-10] == pytest.approx(scale**2 * sd / width**3, rel=0.03)


@pytest.mark.parametrize("change", [lambda x: 5 + 0 * x, lambda x: -x])
def test_flat_images_and_dark_lines_have_no_ridge_on_the_line(change):
    image, distance = line(0.3)
    strength = ridge_points(change(image)[None], SCALES)[0]
    assert strength[np.abs(distance) < 1].max() < 1e-9


def test_an_image_agrees_with_itself(filaments):
    result = ridges(filaments["image"], filaments["image"])
    assert (result.precision, result.recall, result.average_precision) == pytest.approx((1, 1, 1))
    assert result.recall_at(1.0) == 1
    assert result.n_points > 1000


def test_a_scaled_image_has_the_same_curve(filaments):
    """Only the threshold of the reconstruction moves."""
    truth = filaments["expected_image"]
    whole, half = (ridges(truth, truth * scale) for scale in (1.0, 0.5))
    assert half.average_precision == pytest.approx(whole.average_precision)
    np.testing.assert_allclose(half.curve["recall"], whole.curve["recall"])
    np.testing.assert_allclose(half.curve["threshold"], whole.curve["threshold"] / 2, rtol=1e-5)
    assert half.recall < 1


def test_blurred_images_lose_recall(filaments):
    truth = filaments["image"]
    results = [ridges(truth, blurred(truth, sd), filaments["noise_sd"]) for sd in (0.5, 1.5, 3.0)]
    scores = [result.average_precision for result in results]
    recalls = [result.recall for result in results]
    at_90 = [result.recall_at(0.9) for result in results]
    for values in (scores, recalls, at_90):
        assert values == sorted(values, reverse=True)
        assert values[0] > 0.98
        assert values[-1] < 0.95


def test_shifted_lines_lose_precision(filaments):
    truth = filaments["expected_image"]
    near, far = (ridges(truth, np.roll(truth, shift, axis=3)) for shift in (1, 5))
    assert near.precision > 0.95
    # random points are as precise
    assert far.precision < 2 * far.chance
    assert far.average_precision < 0.4


def test_false_ridges_lose_precision_but_no_recall():
    lines = np.stack([line(angle)[0] for angle in (0.2, 1.0, 2.0)])[:, None]
    added = np.stack([line(angle + 1.5)[0] for angle in (0.2, 1.0, 2.0)])[:, None]
    result = ridges(lines, lines + added, noise_sd=0.0)
    assert result.recall > 0.95
    assert result.precision == pytest.approx(0.5, abs=0.1)
    # weaker false lines are only found with a lax threshold
    weak = ridges(lines, lines + 0.3 * added, noise_sd=0.0)
    assert weak.average_precision > result.average_precision + 0.1
    assert weak.recall_at(0.95) > 0.8


@pytest.mark.parametrize("sd", [1.0, 30.0])
def test_noise_has_few_ridges_above_the_threshold(sd):
    """One pixel in 1,000, if only the noise of the truth sets the threshold."""
    images = RNG.normal(0, sd, (60, 1, 64, 64))
    result = ridges(images, images, noise_sd=sd)
    share = result.n_points / (60 * 58 * 58)
    assert share == pytest.approx(1e-3, rel=0.25)


def test_precision_of_random_points_is_chance(filaments):
    other = simulate_filaments(n_cells=60, n_genes=0, seed=9)["image"].obsm["expected_image"]
    result = ridges(filaments["expected_image"], other)
    assert result.precision == pytest.approx(result.chance, rel=0.25)


def test_the_curve_is_that_of_each_threshold(filaments):
    """Precision and recall by their definition, with distances between points."""
    truth, other = filaments["expected_image"][:5], blurred(filaments["image"][:5], 1.0)
    result = ridges(truth, other, noise_sd=0.0, tolerance=2.0)
    one = [ridge_points(image, SCALES)[0] for image in truth]
    two = [ridge_points(image, SCALES)[0] for image in other]
    inside = np.zeros((64, 64), bool)
    inside[3:-3, 3:-3] = True
    for number in (10, len(result.curve) // 2, len(result.curve) - 1):
        level = result.curve["threshold"].iloc[number]
        hits, sizes = np.zeros(2), np.zeros(2)
        for x, y in zip(one, two, strict=True):
            points = [x >= result.threshold, y >= level]
            for which in (0, 1):
                to_others = ndimage.distance_transform_edt(~points[1 - which])
                mine = points[which] & inside
                hits[which] += (to_others[mine] <= 2.0).sum() if points[1 - which].any() else 0
                sizes[which] += mine.sum()
        recall, precision = hits / sizes
        assert result.curve["recall"].iloc[number] == pytest.approx(recall)
        assert result.curve["precision"].iloc[number] == pytest.approx(precision)


def test_a_flat_reconstruction_finds_nothing(filaments):
    result = ridges(filaments["image"], np.zeros_like(filaments["image"]))
    assert result.recall == result.average_precision == result.recall_at(0.1) == 0
    assert np.isnan(result.precision)


def test_blocks_leave_no_seam(filaments, monkeypatch):
    truth, other = filaments["image"], filaments["expected_image"]
    whole = ridges(truth, other)
    monkeypatch.setattr("betavi._blocks.SCORED_IMAGES", 7)
    assert ridges(truth, other).average_precision == pytest.approx(whole.average_precision)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scales": ()}, r"`scales` must be numbers of at least 0.5"),
        ({"scales": (0.1,)}, r"`scales` must be numbers of at least 0.5"),
        ({"tolerance": -1}, "`tolerance` must be at least 0"),
        ({"threshold": 0.0}, "`threshold` must be above 0"),
        ({"threshold": 1e9}, "`truth` has no ridge with a strength of at least 1e"),
        ({"truth": np.zeros((3, 9, 9))}, "`truth` has shape"),
    ],
)
def test_bad_input_is_refused(filaments, change, message):
    arguments = {"truth": filaments["image"], "reconstruction": filaments["image"]}
    with pytest.raises(ValueError, match=message):
        ridges(**(arguments | change))


def test_constant_images_are_refused():
    with pytest.raises(ValueError, match="`truth` has no ridge"):
        ridges(np.ones((2, 1, 16, 16)), np.ones((2, 1, 16, 16)))


def test_blurred_mitochondria_lose_recall(real_image):  # noqa: F811
    images = crops(real_image("BPAE_mito.tif"), 64, min_contrast=200).obsm["image"]
    scores = [ridges(images, blurred(images, sd)).average_precision for sd in (0.5, 1.5, 3.0)]
    assert scores == sorted(scores, reverse=True)
    assert scores[0] > 0.98
    assert scores[-1] < 0.9
