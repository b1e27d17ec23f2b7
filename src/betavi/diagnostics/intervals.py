"""Intervals that are calibrated on held-out cells."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

INTERVAL = 0.9
"""Share of new values that an interval contains."""

FEWEST_CALIBRATION_CELLS = 24
"""Smallest number of cells that calibrate intervals. With fewer, the share of new values inside an
interval would vary by more than 0.06. Not tuned."""

N_FOLDS = 5
"""Number of parts of the cells. Each part is calibrated with the others to estimate the coverage."""

ENOUGH_OF_GROUP = 50
"""Smallest number of cells of a batch for a calibration of its own. Not tuned."""

FEWEST_FEATURES = 3
"""Smallest number of features that borrow from each other. Not tuned."""

N_ERRORS = 2.0
"""Standard errors between a feature and all features, from which on it does not borrow. Not tuned."""

LEAST_WIDTH = 0.1
"""Width that is added to each interval before calibration, in mean widths of the feature. Intervals
without width could not be widened. Not tuned."""

EVERYONE = -1
"""Group of the calibration on the cells of all batches."""


class IntervalCalibration(NamedTuple):
    """Widths by which intervals are extended at both ends, by group of cells and feature.

    Parameters
    ----------
    factors
        Extension in widths of the interval, ``(n_features,)``, by group. The group -1 has the cells
        of all groups. Negative values make intervals narrower.
    least
        Width that is added to each interval before it is extended, ``(n_features,)``.

    Examples
    --------
    >>> import numpy as np
    >>> from betavi.diagnostics import calibrate_intervals
    >>> draws = np.random.default_rng(0).normal(size=(200, 1))
    >>> narrow = np.full((200, 1), -1.0), np.full((200, 1), 1.0)
    >>> found = calibrate_intervals(draws, *narrow)
    >>> lower, upper = found.extended(*narrow)
    >>> round(float(upper[0, 0]), 1)
    1.5
    """

    factors: dict[int, np.ndarray]
    least: np.ndarray

    def extended(
        self, lower: np.ndarray, upper: np.ndarray, groups: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return calibrated intervals, ``(n_cells, n_features)``. ``groups`` has a code per cell."""
        codes = np.full(len(lower), EVERYONE) if groups is None else groups
        ends = np.array(lower, dtype=np.float64), np.array(upper, dtype=np.float64)
        for code in np.unique(codes):
            mine, factor = codes == code, self.factors.get(int(code), self.factors[EVERYONE])
            low, high = lower[mine], upper[mine]
            extension, middle = factor * (high - low + self.least), (low + high) / 2
            ends[0][mine] = np.minimum(low - extension, middle)
            ends[1][mine] = np.maximum(high + extension, middle)
        return ends


def calibrate_intervals(
    truth: ArrayLike, lower: ArrayLike, upper: ArrayLike, groups: ArrayLike | None = None
) -> IntervalCalibration:
    """Calibrate 90 % intervals of each feature on cells that the model has not seen.

    If new cells are like these cells, an interval of a new cell contains its value with a
    probability of about 90 % (Romano et al., 2019). The extension is in proportion to the width of
    the interval, so that intervals stay narrow where the model knows more. With few cells, the
    extension of a feature is shrunk towards the extension of all features (Efron & Morris, 1975).

    Parameters
    ----------
    truth
        Measured values, ``(n_cells, n_features)``, of at least 24 cells.
    lower, upper
        Ends of the intervals, same shape and scale.
    groups
        Code of each cell's batch, ``(n_cells,)``. Batches with at least 50 cells are calibrated on
        their own cells.

    Returns
    -------
    The calibration, for intervals of new cells.

    Raises
    ------
    ValueError
        If there are fewer than 24 cells.

    References
    ----------
    Romano et al. (2019), Conformalized quantile regression. Efron & Morris (1975), Data analysis
    using Stein's estimator and its generalizations.

    Examples
    --------
    >>> import numpy as np
    >>> from betavi.diagnostics import calibrate_intervals
    >>> truth = np.linspace(-1, 1, 99)[:, None]
    >>> found = calibrate_intervals(truth, np.full((99, 1), -0.5), np.full((99, 1), 0.5))
    >>> found.extended(np.array([[-0.5]]), np.array([[0.5]]))[1].round(1).tolist()
    [[0.9]]
    """
    truth, lower, upper = (np.asarray(part, dtype=np.float64) for part in (truth, lower, upper))
    if len(truth) < FEWEST_CALIBRATION_CELLS:
        raise ValueError(
            f"A calibration needs at least {FEWEST_CALIBRATION_CELLS} cells, not {len(truth)}."
        )
    return _calibrated(truth, lower, upper, groups)


def cross_calibrated(
    truth: np.ndarray, lower: np.ndarray, upper: np.ndarray, groups: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return intervals of each fifth of the cells, calibrated with the other cells.

    The coverage of these intervals is an estimate for new cells. With fewer than 24 cells, the
    intervals are returned as they are.

    Parameters
    ----------
    truth, lower, upper, groups
        See :func:`calibrate_intervals`.

    Returns
    -------
    Lower and upper ends, ``(n_cells, n_features)``.

    Examples
    --------
    >>> import numpy as np
    >>> from betavi.diagnostics import cross_calibrated
    >>> truth = np.linspace(-1, 1, 99)[:, None]
    >>> lower, upper = cross_calibrated(truth, np.full((99, 1), -0.5), np.full((99, 1), 0.5))
    >>> bool((upper > 0.8).all())
    True
    """
    ends = np.array(lower, dtype=np.float64), np.array(upper, dtype=np.float64)
    if len(truth) < FEWEST_CALIBRATION_CELLS:
        return ends
    order = np.random.default_rng(0).permutation(len(truth))
    for part in np.array_split(order, N_FOLDS):
        others = np.setdiff1d(order, part)
        of_others, of_part = (None if groups is None else groups[some] for some in (others, part))
        share = len(others) / len(order)
        found = _calibrated(truth[others], lower[others], upper[others], of_others, share)
        ends[0][part], ends[1][part] = found.extended(ends[0][part], ends[1][part], of_part)
    return ends


def _calibrated(
    truth: np.ndarray,
    lower: np.ndarray,
    upper: np.ndarray,
    groups: ArrayLike | None = None,
    share: float = 1.0,
) -> IntervalCalibration:
    width = upper - lower
    least = LEAST_WIDTH * np.maximum(width.mean(axis=0), np.finfo(np.float32).tiny)
    outside = np.maximum(lower - truth, truth - upper) / (width + least)
    factors = {EVERYONE: _factor(outside)}
    codes = np.full(len(truth), EVERYONE) if groups is None else np.asarray(groups)
    for code, count in zip(*np.unique(codes, return_counts=True), strict=True):
        if share * ENOUGH_OF_GROUP <= count < len(codes):
            factors[int(code)] = _factor(outside[codes == code])
    return IntervalCalibration(factors, least)


def _factor(outside: np.ndarray) -> np.ndarray:
    """Return the order statistic that another value does not exceed with a probability of 90 %.

    It is shrunk towards the 90 % quantile of all features, the more, the larger its standard error
    is beside the differences between features (Efron & Morris, 1975). A feature that is
    significantly different from the others is not shrunk.
    """
    n_cells, n_features = outside.shape
    ordered = np.sort(outside, axis=0)
    rank = min(int(np.ceil(INTERVAL * (n_cells + 1))), n_cells)
    factor: np.ndarray = ordered[rank - 1]
    if n_features < FEWEST_FEATURES:
        return factor
    # ranks one standard error of the binomial distribution away
    step = max(1, round(np.sqrt(n_cells * INTERVAL * (1 - INTERVAL))))
    above, below = ordered[min(rank + step, n_cells) - 1], ordered[max(rank - step, 1) - 1]
    error, everyone = np.square((above - below) / 2), np.quantile(outside, INTERVAL)
    between = max(float(np.square(factor - everyone).mean() - error.mean()), 0.0)
    weight = between / (between + np.maximum(error, np.finfo(float).tiny))
    weight[np.square(factor - everyone) > N_ERRORS**2 * error] = 1.0
    shrunk: np.ndarray = weight * factor + (1 - weight) * everyone
    return shrunk
