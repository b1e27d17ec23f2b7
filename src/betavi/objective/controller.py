"""Controller that adjusts β until the rate reaches a target."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn


class Gains(NamedTuple):
    """Gains of a controller: change of log β per step and per unit of log(rate / target)."""

    proportional: float
    integral: float


GAINS = Gains(proportional=3.0, integral=0.1)

LARGEST_ERROR = 1.0
"""Largest error: a rate that differs by a factor of e. Larger errors are clipped."""

LOG_BETA_RANGE = (math.log(1e-6), math.log(1e6))
"""Range of log β. Beyond it, β no longer changes the rate."""

CELLS_AVERAGED = 1280
"""Number of cells over which the rate is averaged, with decaying weights."""

SMALLEST_RATE = 1e-6
"""Smallest rate in nats, so that the rate of a collapsed posterior has a logarithm."""


def steer(log_beta: float, error: float, last_error: float, gains: Gains = GAINS) -> float:
    r"""Return the log β of the next step, which brings the rate (KL) closer to its target.

    This is a proportional-integral controller in incremental form, :math:`\Delta\log\beta = K_p
    (e_t - e_{t-1}) + K_i e_t`. Errors and β are on the log scale, so that the gains do not depend
    on the number of genes.

    Parameters
    ----------
    log_beta
        Log β of this step.
    error
        log(rate / target) at this step.
    last_error
        log(rate / target) at the previous step.
    gains
        Gains :math:`K_p` and :math:`K_i`.

    Returns
    -------
    Log β, within :data:`LOG_BETA_RANGE`.

    References
    ----------
    Shao et al. (2020), ControlVAE.

    Examples
    --------
    >>> from betavi.objective import steer
    >>> steer(0.0, error=0.5, last_error=0.5) > 0
    True
    """
    now, before = (max(-LARGEST_ERROR, min(LARGEST_ERROR, e)) for e in (error, last_error))
    step = gains.proportional * (now - before) + gains.integral * now
    low, high = LOG_BETA_RANGE
    return max(low, min(high, log_beta + step))


class RateController(nn.Module):
    """Controller with its state in buffers, which are saved with the weights. See :func:`steer`.

    Examples
    --------
    >>> from betavi.objective import RateController
    >>> controller = RateController()
    >>> for _ in range(100):
    ...     beta = controller.next_beta(rate=12.0, target=10.0, beta=1.0)
    >>> beta > 1
    True
    """

    log_beta: Tensor
    smooth_rate: Tensor
    last_rate: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in ("log_beta", "smooth_rate", "last_rate"):
            self.register_buffer(name, torch.tensor(math.nan))

    def beta(self, otherwise: float) -> float:
        """Return the β of the last step, or ``otherwise`` before the first."""
        return otherwise if self.log_beta.isnan() else self.log_beta.exp().item()

    def next_beta(self, rate: float, target: float, beta: float, n_cells: int = 128) -> float:
        """Return the β of the next step, given a minibatch's mean rate in nats per cell.

        ``beta`` is the β of the first step.
        """
        if self.log_beta.isnan():
            self.log_beta.fill_(math.log(max(beta, math.exp(LOG_BETA_RANGE[0]))))
            self.smooth_rate.fill_(rate)
            self.last_rate.fill_(rate)
        # averaged before the logarithm, which biases a noisy rate downwards
        self.smooth_rate.lerp_(
            self.smooth_rate.new_tensor(rate), -math.expm1(-n_cells / CELLS_AVERAGED)
        )
        error = _error(self.smooth_rate.item(), target)
        # relative to the present target, which may have changed
        last_error = _error(self.last_rate.item(), target)
        log_beta = steer(self.log_beta.item(), error, last_error)
        self.log_beta.fill_(log_beta)
        self.last_rate.copy_(self.smooth_rate)
        return math.exp(log_beta)


def _error(rate: float, target: float) -> float:
    return math.log(max(rate, SMALLEST_RATE) / target)
