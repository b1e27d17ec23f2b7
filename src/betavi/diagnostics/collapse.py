"""Classification of latent dimensions: signal, noise or no information."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from betavi.diagnostics.information import ACTIVE, mutual_information

N_ERRORS = 3.0  # standard errors of a significant difference
NOISE_SHARE = 0.5  # a dimension with less signal than this share of its information is noise
LEAST_SIGNAL = 0.03  # nats: all dimensions have traces; 1 % of the cells 3 sd apart have more
DEPTH_POWERS = range(1, 6)  # of the log total count, whose effect is removed from both halves
CELLS_PER_POWER = 20  # fewest cells for each power and modality, so that the fit follows no noise
UNUSED = ("inactive", "noise", "depth")  # statuses of dimensions without signal
SMALLEST_ERROR = 1e-12  # avoids division by zero if no posterior moves


@dataclass(frozen=True)
class DimensionArrays:
    """Posteriors of cells, and the effects of interventions on them.

    Parameters
    ----------
    loc, scale
        Means and standard deviations of the posteriors, ``(n_cells, n_latent)``.
    rates
        Rate (KL divergence from the prior) of each dimension, nats, ``(n_latent,)``. NaN if the KL
        is not a sum over dimensions.
    losses
        Increase in the reconstruction loss of a cell, nats, if a dimension is replaced by a draw
        from the prior, ``(n_probed, n_latent)``.
    halves
        Features are split at random into two halves, several times. The data first have no signal
        of the dimension. Then one half of the features gets its measured values back. The entry is
        the resulting shift of the posterior mean, ``(n_splits, 2, n_probed, n_latent)``.
    log_totals
        Log total count of each cell in each modality with a library size,
        ``(n_probed, n_modalities)``. If None, the effect of the total count is not removed.

    Examples
    --------
    >>> one = np.ones((2, 1))
    >>> DimensionArrays(one, one, np.ones(1), one, np.ones((4, 2, 2, 1))).halves.shape
    (4, 2, 2, 1)
    """

    loc: np.ndarray
    scale: np.ndarray
    rates: np.ndarray
    losses: np.ndarray
    halves: np.ndarray
    log_totals: np.ndarray | None = None


def judge_dimensions(found: DimensionArrays) -> pd.DataFrame:
    """Classify latent dimensions as used, inactive, noise or unclear.

    A dimension is ``"used"`` if three conditions hold. Decoding is worse without the dimension. Two
    random halves of the features agree on its value. The dimension carries at least 0.03 nats.
    Noise of counting or of a single gene does not agree between the halves, even if the model has
    memorised the data. The total count of a cell can agree, so its effect (a polynomial of degree 5
    in the log total count) is first removed from both halves. A dimension that meets the three conditions
    only with this effect, which must itself be significant, is ``"depth"``. Any other dimension that is not used is ``"inactive"`` if it carries at most 0.1
    nats. It is ``"noise"`` if significantly less than 50 % of its information matters to the
    decoder, or agrees between the halves. It is ``"unclear"`` if there are too few cells to decide.
    All tests use three standard errors.

    Parameters
    ----------
    found
        Arrays of held-out cells. For training cells, the model may have memorised the noise.

    Returns
    -------
    One row per dimension. In nats per cell: ``kl``, the rate (KL); ``information`` of the dimension
    alone, see :func:`~betavi.diagnostics.mutual_information`; ``signal``, the information on which
    both halves agree among cells with the same total count; ``sensitivity``, the increase in loss without the dimension; and
    ``sensitivity_error``, its standard error. Further columns: ``mean_variance``, the variance of
    the posterior means (Burda et al., 2016, Importance weighted autoencoders);
    ``posterior_variance``, the mean variance of the posteriors; ``agreement`` of the halves, in
    standard errors; and ``status``.

    Examples
    --------
    >>> rng = np.random.default_rng(1)
    >>> z = rng.normal(size=(500, 1))
    >>> loc, scale = np.hstack([z, 0.1 * z]), np.full((500, 2), [0.3, 1.0])
    >>> halves = np.array([[0.5, 0.0]]) * z + 0.3 * rng.normal(size=(4, 2, 500, 2))
    >>> losses = np.array([5.0, 0.0]) + rng.normal(size=(500, 2))
    >>> arrays = DimensionArrays(loc, scale, np.array([1.2, 0.01]), losses, halves)
    >>> judge_dimensions(arrays)["status"].tolist()
    ['used', 'inactive']
    """
    noise = np.square(found.scale).mean(axis=0)
    products = _products(found.halves, found.log_totals)
    shared, error = _mean_and_error(products)
    n_probed = found.halves.shape[2]
    posteriors = zip(found.loc.T, found.scale.T, strict=True)
    table = pd.DataFrame(
        {
            "kl": found.rates,
            "mean_variance": found.loc.var(axis=0),
            "posterior_variance": noise,
            "information": [mutual_information(m[:, None], s[:, None]) for m, s in posteriors],
            # each half has half of the signal, and so a quarter of its variance
            "signal": np.log1p(4 * np.maximum(shared, 0) / noise) / 2,
            "agreement": shared / np.maximum(error, SMALLEST_ERROR),
            "sensitivity": found.losses.mean(axis=0),
            "sensitivity_error": found.losses.std(axis=0) / np.sqrt(n_probed),
        }
    )
    table.index.name = "dimension"
    is_decoded = table["sensitivity"] > N_ERRORS * table["sensitivity_error"]
    is_informative = is_decoded & (table["information"] > LEAST_SIGNAL)
    is_signal = is_informative & (table["agreement"] > N_ERRORS)
    # what both halves say with the depth, and what the depth alone adds
    whole = _products(found.halves, None)
    parts = (_mean_and_error(part) for part in (whole, whole - products))
    is_depth = is_informative & np.all([mean > N_ERRORS * error for mean, error in parts], axis=0)
    is_inactive = table["information"] <= ACTIVE
    most_signal = np.log1p(4 * np.maximum(shared + N_ERRORS * error, 0) / noise) / 2
    most_loss = table["sensitivity"] + N_ERRORS * table["sensitivity_error"]
    is_noise = np.minimum(most_signal, most_loss) < NOISE_SHARE * table["information"]
    conditions = [is_signal, is_depth, is_inactive, is_noise]
    table["status"] = np.select(conditions, ["used", "depth", "inactive", "noise"], "unclear")
    return table


def _products(halves: np.ndarray, log_totals: np.ndarray | None) -> np.ndarray:
    """Return the product of both halves' shifts of each cell, ``(n_probed, n_latent)``.

    The mean over cells is the covariance of both halves, for cells with the same total counts.
    """
    n_probed = halves.shape[2]
    shifts = np.moveaxis(halves - halves.mean(axis=2, keepdims=True), 2, 0)
    n_free = n_probed
    if log_totals is not None:
        basis = _powers(log_totals, n_probed)
        flat = shifts.reshape(n_probed, -1)
        fit, _, rank, _ = np.linalg.lstsq(basis, flat, rcond=None)
        shifts = (flat - basis @ fit).reshape(shifts.shape)
        n_free -= int(rank) - 1
    products: np.ndarray = shifts.prod(axis=2).mean(axis=1) * (n_probed / n_free)
    return products


def _mean_and_error(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return values.mean(axis=0), values.std(axis=0) / np.sqrt(len(values))


def _powers(log_totals: np.ndarray, n_cells: int) -> np.ndarray:
    """Return powers of the log total counts, fewer of them if there are few cells."""
    deviations = log_totals - log_totals.mean(axis=0)
    scaled = deviations / np.maximum(deviations.std(axis=0), SMALLEST_ERROR)
    most = max(1, n_cells // (CELLS_PER_POWER * log_totals.shape[1]))
    return np.hstack([scaled**0, *(scaled**power for power in DEPTH_POWERS[:most])])
