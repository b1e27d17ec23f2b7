"""Agreement of ridges, such as filaments, between images and their reconstructions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy import ndimage

from betavi.metrics._images import image_blocks, read_noise, read_pair
from betavi.metrics._ridge_filter import ridge_points
from betavi.metrics.image_power import estimated_noise

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike

FALSE_SHARE = 1e-3
"""Share of the pixels of pure noise that may be ridges of the truth."""

WEAKEST, STRONG = 0.1, 0.99
"""A ridge of the truth has at least a tenth of the 99 % quantile of all strengths."""

N_NOISE_IMAGES, NOISE_SIZE = 16, 128


@dataclass(frozen=True)
class RidgeAgreement:
    """Agreement of the ridges of reconstructions with the ridges of the truth.

    Parameters
    ----------
    curve
        One row for each threshold of the reconstruction, from strict to lax. Columns:
        ``threshold``, ``precision`` (share of the ridge points of the reconstruction that are near
        a ridge of the truth) and ``recall`` (share of the ridge points of the truth that are near a
        ridge of the reconstruction).
    average_precision
        Mean precision over recall, 0 to 1: the area below the curve.
    precision, recall
        Values if the reconstruction has the threshold of the truth. ``1 - precision`` is the share
        of false ridges.
    threshold
        Smallest strength of a ridge of the truth, in the unit of the image.
    chance
        Share of all pixels that are near a ridge of the truth: the precision of random points.
    n_points
        Number of ridge points of the truth.

    Examples
    --------
    >>> import betavi
    >>> images = betavi.datasets.simulate_filaments(n_cells=20, n_genes=0)["image"].obsm
    >>> result = betavi.metrics.ridges(images["expected_image"], images["image"])
    >>> result.recall_at(0.9) > 0.9
    True
    """

    curve: pd.DataFrame
    average_precision: float
    precision: float
    recall: float
    threshold: float
    chance: float
    n_points: int

    def recall_at(self, precision: float) -> float:
        """Return the highest recall with at least this precision, or 0 if no threshold reaches it."""
        enough = self.curve["recall"][self.curve["precision"] >= precision]
        return float(enough.max()) if len(enough) else 0.0


def ridges(
    truth: ArrayLike,
    reconstruction: ArrayLike,
    noise_sd: ArrayLike | None = None,
    scales: Sequence[float] = (1.5, 2.0, 3.0),
    tolerance: float = 1.5,
    threshold: float | None = None,
) -> RidgeAgreement:
    r"""Compare the ridges (bright lines) of images and reconstructions.

    The strength of a ridge is :math:`-s^2 (\lambda + \max(\mu, 0))`. Here :math:`\lambda` is the
    curvature across the ridge and :math:`\mu` the curvature along it: the lower and the higher
    eigenvalue of the matrix of second derivatives, after a normal blur with standard deviation
    :math:`s`. The scale with the largest strength counts. A ridge point is a pixel with a strength
    above its two neighbours across the ridge. Ridges of the truth count above one threshold. The
    threshold of the reconstruction varies, because a blurred ridge is weaker. A point is found if
    the other image has a ridge point within ``tolerance``.

    Parameters
    ----------
    truth
        Measured images, ``(n_images, n_channels, height, width)``, or their expectation without
        noise. Channels are compared separately, and their points are counted together.
    reconstruction
        Reconstructions of the same images, means or draws, in the same unit.
    noise_sd
        Standard deviation of the noise in ``truth``: one number, or an array that broadcasts to its
        shape. Only its root mean square is used, for the default ``threshold``. By default, the
        noise is estimated as in :func:`betavi.metrics.power_ratio`.
    scales
        Standard deviations of the blur, in pixels, near the width of the ridges.
    tolerance
        Largest distance of two points that agree, in pixels.
    threshold
        Smallest strength of a ridge of the truth. By default, the larger of two values: the strength
        that one in 1,000 pixels of pure noise exceeds as a ridge point, and a tenth of the strength
        of strong ridges (their 99 % quantile).

    Returns
    -------
    Precision and recall for each threshold of the reconstruction, and summaries.

    Raises
    ------
    ValueError
        If the images have another shape, missing pixels or fewer than 8 × 8 pixels, if a number is
        out of range, or if the truth has no ridge.

    Notes
    -----
    Pixels within two scales of the edge of an image are not counted, because a cut structure can
    look like a ridge. A small bright spot counts as a ridge. Precision depends on how dense the
    ridges are: compare reconstructions of the same images only.

    References
    ----------
    Lindeberg (1998), Edge detection and ridge detection with automatic scale selection.

    Examples
    --------
    >>> import betavi
    >>> from scipy.ndimage import gaussian_filter
    >>> images = betavi.datasets.simulate_filaments(n_cells=20, n_genes=0)["image"].obsm
    >>> truth = images["expected_image"]
    >>> blurred = gaussian_filter(truth, (0, 0, 4, 4))
    >>> same, worse = (betavi.metrics.ridges(truth, x) for x in (truth, blurred))
    >>> same.average_precision > 0.99, worse.average_precision < 0.9
    (True, True)
    """
    one, two = read_pair(truth, reconstruction)
    _check_numbers(scales, tolerance, threshold)
    if threshold is None:
        noise = estimated_noise(one) if noise_sd is None else read_noise(noise_sd, one.shape)
        threshold = _threshold(one, float(np.sqrt(np.mean(np.square(noise)))), scales)
    margin = int(np.ceil(2 * min(scales)))
    parts = [
        _matched(one[rows], two[rows], scales, tolerance, threshold, margin)
        for rows in image_blocks(len(one))
    ]
    found, strengths, is_true, near = (np.concatenate(part) for part in zip(*parts, strict=True))
    if not len(found):
        raise ValueError(
            f"`truth` has no ridge with a strength of at least {threshold:.3g}. Pass a lower "
            "`threshold`, other `scales`, or images with bright lines."
        )
    return _agreement(found, strengths, is_true, threshold, float(near.mean()))


def _check_numbers(scales: Sequence[float], tolerance: float, threshold: float | None) -> None:
    if not len(scales) or not all(0.5 <= scale < np.inf for scale in scales):
        raise ValueError(f"`scales` must be numbers of at least 0.5, not {scales!r}.")
    if not 0 <= tolerance < np.inf:
        raise ValueError(f"`tolerance` must be at least 0, not {tolerance!r}.")
    if threshold is not None and not 0 < threshold < np.inf:
        raise ValueError(f"`threshold` must be above 0, not {threshold!r}.")


def _threshold(truth: np.ndarray, noise: float, scales: Sequence[float]) -> float:
    """Return the smallest strength of a ridge of the truth."""
    shape = (N_NOISE_IMAGES, NOISE_SIZE, NOISE_SIZE)
    pure = ridge_points(np.random.default_rng(0).normal(size=shape), scales)
    strong = np.concatenate(
        [_strengths(truth[rows], scales).ravel() for rows in image_blocks(len(truth))]
    )
    strong = strong[strong > 0]
    highest = float(np.quantile(strong, STRONG)) if len(strong) else 0.0
    return max(noise * float(np.quantile(pure, 1 - FALSE_SHARE)), WEAKEST * highest)


def _strengths(images: np.ndarray, scales: Sequence[float]) -> np.ndarray:
    """Return strengths of ridge points, with images and channels in one axis."""
    return ridge_points(images.reshape(-1, *images.shape[2:]), scales)


def _matched(
    truth: np.ndarray,
    reconstruction: np.ndarray,
    scales: Sequence[float],
    tolerance: float,
    threshold: float,
    margin: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return for each true point the strongest point of the reconstruction near it, 0 if none.

    Also return the strengths of all points of the reconstruction, a mask of those near a true
    point, and a mask of all pixels near a true point.
    """
    one, two = _strengths(truth, scales), _strengths(reconstruction, scales)
    one = np.where(one >= threshold, one, 0)
    reach = int(tolerance)
    offsets = np.arange(-reach, reach + 1)
    near = np.hypot(offsets[:, None], offsets) <= tolerance
    near_one, near_two = (ndimage.grey_dilation(x, footprint=near[None]) for x in (one, two))
    # points at the edge are not counted, but may match others
    inside = (slice(None), *(slice(margin, length - margin) for length in one.shape[1:]))
    one, two, near_one, near_two = one[inside], two[inside], near_one[inside], near_two[inside]
    return near_two[one > 0], two[two > 0], near_one[two > 0] > 0, near_one.ravel() > 0


def _agreement(
    found: np.ndarray,
    strengths: np.ndarray,
    is_true: np.ndarray,
    threshold: float,
    chance: float,
) -> RidgeAgreement:
    """Return precision and recall for each strength of a point of the reconstruction."""
    order = np.argsort(-strengths, kind="stable")
    is_true = is_true[order].cumsum()
    levels, counts = np.unique(-strengths, return_counts=True)
    # number of points with at least this strength
    ends = counts.cumsum()
    precision = is_true[ends - 1] / ends
    recall = 1 - np.searchsorted(np.sort(found), -levels) / len(found)
    curve = pd.DataFrame({"threshold": -levels, "precision": precision, "recall": recall})
    above = curve[curve["threshold"] >= threshold]
    at = above.iloc[-1] if len(above) else pd.Series({"precision": np.nan, "recall": 0.0})
    steps = np.diff(recall, prepend=0)
    return RidgeAgreement(
        curve,
        average_precision=float(steps @ precision),
        precision=float(at["precision"]),
        recall=float(at["recall"]),
        threshold=float(threshold),
        chance=chance,
        n_points=len(found),
    )
