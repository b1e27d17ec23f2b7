"""Classification of latent dimensions by what they carry: signal, noise or nothing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from betavi.diagnostics.information import ACTIVE, mutual_information

SURE = 3.0  # standard errors of a significant difference
MOSTLY = 0.5  # share of a dimension's information that is not signal, in one of noise
LEAST = 0.03  # nats: less is a trace, as any dimension has; 1 % of cells 3 sd apart have more
SMALLEST = 1e-12  # least standard error, where nothing moves at all


@dataclass(frozen=True)
class DimensionArrays:
    """Posteriors and interventions by which dimensions are judged.

    Parameters
    ----------
    loc, scale
        Means and standard deviations of the posteriors, ``(n_cells, n_latent)``.
    rates, losses
        KL from the prior, ``(n_latent,)``, NaN where it is no sum over dimensions, and each cell's
        loss from drawing a dimension from the prior, ``(n_probed, n_latent)``, nats.
    halves
        Shift of the posterior mean when data without their signal become the measured ones in one
        half of the features or in the other, ``(n_splits, 2, n_probed, n_latent)``.

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


def judge_dimensions(found: DimensionArrays) -> pd.DataFrame:
    """Classify dimensions by what they carry: signal, noise or nothing.

    A dimension is ``"used"`` if decoding is worse without it, if both halves of the features agree
    on its value, and if it carries at least 0.03 nats. Noise, of counting or of a single gene,
    differs between halves: their covariance is then about zero, even if the model has memorised the
    data. The other dimensions are ``"dead"`` if they carry at most 0.1 nats per cell; ``"noise"``
    if they carry more, but surely less than half of it matters to the decoder or agrees between
    halves; and ``"unclear"`` if there are too few cells. All tests are at three standard errors.

    Parameters
    ----------
    found
        Posteriors and interventions of cells that training has not seen: in training cells the
        model has learnt the noise of both halves.

    Returns
    -------
    One row per dimension: ``kl``; ``mean_variance``, of posterior means (Burda et al., 2016,
    Importance weighted autoencoders); ``posterior_variance``, its mean; ``information`` of the
    dimension alone, see :func:`~betavi.diagnostics.mutual_information`; ``signal``, the part of it
    that both halves agree on, and ``agreement``, in standard errors; ``sensitivity``, the loss
    without the dimension, and its ``sensitivity_error``; and ``status``. All but the variances and
    the agreement are in nats per cell.

    Examples
    --------
    >>> rng = np.random.default_rng(1)
    >>> z = rng.normal(size=(500, 1))
    >>> loc, scale = np.hstack([z, 0.1 * z]), np.full((500, 2), [0.3, 1.0])
    >>> halves = np.array([[0.5, 0.0]]) * z + 0.3 * rng.normal(size=(4, 2, 500, 2))
    >>> losses = np.array([5.0, 0.0]) + rng.normal(size=(500, 2))
    >>> arrays = DimensionArrays(loc, scale, np.array([1.2, 0.01]), losses, halves)
    >>> judge_dimensions(arrays)["status"].tolist()
    ['used', 'dead']
    """
    noise = np.square(found.scale).mean(axis=0)
    centred = found.halves - found.halves.mean(axis=2, keepdims=True)
    products = centred.prod(axis=1).mean(axis=0)
    n_probed = len(products)
    shared, error = products.mean(axis=0), products.std(axis=0) / np.sqrt(n_probed)
    table = pd.DataFrame(
        {
            "kl": found.rates,
            "mean_variance": found.loc.var(axis=0),
            "posterior_variance": noise,
            "information": [
                mutual_information(loc[:, None], scale[:, None])
                for loc, scale in zip(found.loc.T, found.scale.T, strict=True)
            ],
            # halves carry half of the signal each, and a quarter of its variance
            "signal": np.log1p(4 * np.maximum(shared, 0) / noise) / 2,
            "agreement": shared / np.maximum(error, SMALLEST),
            "sensitivity": found.losses.mean(axis=0),
            "sensitivity_error": found.losses.std(axis=0) / np.sqrt(n_probed),
        }
    )
    table.index.name = "dimension"
    is_missed = table["sensitivity"] > SURE * table["sensitivity_error"]
    is_signal = (table["agreement"] > SURE) & (table["information"] > LEAST)
    is_used = is_missed & is_signal
    is_dead = table["information"] <= ACTIVE
    most = np.log1p(4 * np.maximum(shared + SURE * error, 0) / noise) / 2
    most_missed = table["sensitivity"] + SURE * table["sensitivity_error"]
    is_noise = np.minimum(most, most_missed) < MOSTLY * table["information"]
    table["status"] = np.select([is_used, is_dead, is_noise], ["used", "dead", "noise"], "unclear")
    return table
