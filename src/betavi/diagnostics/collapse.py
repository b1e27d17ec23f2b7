"""What each dimension of a latent space carries: signal, noise or nothing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from betavi.diagnostics.information import ACTIVE, mutual_information

SURE = 3.0
"""Standard errors from which on a difference is one."""

MOSTLY = 0.5
"""Share of what a dimension says that is surely no signal in one of noise."""

LEAST = 0.03
"""Nats below which a dimension is dead, however surely they are signal: every dimension of a network
has a trace. A type of cells that is one in a hundred, and three standard deviations off, has more."""

SMALLEST = 1e-12
"""Standard error of what does not move at all."""


@dataclass(frozen=True)
class DimensionArrays:
    """What the judgement of dimensions is made from.

    Parameters
    ----------
    loc, scale
        Means and standard deviations of the posteriors, ``(n_cells, n_latent)``.
    rates
        KL from the prior, nats, ``(n_latent,)``; NaN where it is no sum over dimensions.
    losses
        How much worse each cell is explained with a dimension drawn from the prior, nats,
        ``(n_probed, n_latent)``.
    halves
        By how much its posterior mean moves when data without its signal become the measured ones
        in one half of the features, and in the other, for several ways to halve them,
        ``(n_splits, 2, n_probed, n_latent)``.

    Examples
    --------
    >>> import numpy as np
    >>> from betavi.diagnostics import DimensionArrays, judge_dimensions
    >>> loc = np.random.default_rng(0).normal(size=(500, 1))
    >>> halves = np.broadcast_to(loc / 2, (4, 2, 500, 1))
    >>> losses = np.full((500, 1), 5.0)
    >>> found = DimensionArrays(loc, np.full((500, 1), 0.3), np.array([1.2]), losses, halves)
    >>> judge_dimensions(found)["status"].tolist()
    ['used']
    """

    loc: np.ndarray
    scale: np.ndarray
    rates: np.ndarray
    losses: np.ndarray
    halves: np.ndarray


def judge_dimensions(found: DimensionArrays) -> pd.DataFrame:
    """Say of each dimension what it carries, and whether that is signal, noise or nothing.

    A dimension is ``"used"`` if the decoder misses it, and if what one half of the features says of
    it in a cell agrees with what the other half says, and it says at least 0.03 nats. Noise is
    another in each half, be it that of counting or of a single gene: data without a signal make
    their covariance about zero, however much of them a model has learned by heart. Of the other dimensions one is ``"dead"`` if it says
    at most 0.1 nats of a cell; ``"noise"`` if it says more and surely less than half of that is
    missed by the decoder, or agreed on by the halves; and ``"unclear"`` if there are too few cells
    to say. All tests are at three standard errors.

    Parameters
    ----------
    found
        Posteriors and interventions, of cells that training has not seen: of others it knows the
        noise of both halves.

    Returns
    -------
    One row per dimension: ``kl``; ``mean_variance``, of posterior means (Burda et al., 2016);
    ``posterior_variance``, its mean; ``information``, of the dimension alone, see
    :func:`~betavi.diagnostics.mutual_information`; ``signal``, the part of it that both halves
    agree on, and ``agreement``, in standard errors; ``sensitivity``, the loss without the
    dimension, and its ``sensitivity_error``; and ``status``. All but the variances and the
    agreement in nats per cell.

    References
    ----------
    Burda et al. (2016), Importance weighted autoencoders, for the variance of posterior means.

    Examples
    --------
    >>> import numpy as np
    >>> from betavi.diagnostics import DimensionArrays, judge_dimensions
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
