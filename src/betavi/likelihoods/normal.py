"""Normal values, for data that are not counts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from scvi.distributions import Normal

from betavi.likelihoods._base import Likelihood
from betavi.likelihoods._mass import count_cell, log_detection_at, log_mass_between

if TYPE_CHECKING:
    from torch import Tensor

    from betavi.data.start import Start

SMALLEST_VARIANCE = 1e-4
"""Variance at which training starts for a feature that hardly varies."""


def log_deviation_at(unexplained: Tensor) -> Tensor:
    """Return the log standard deviation of an unexplained variance."""
    return unexplained.clamp_min(SMALLEST_VARIANCE).sqrt().log()


class NormalLikelihood(Likelihood):
    """Values with a standard deviation, ``theta``, free of their mean.

    As in SCVI the mean is a share of the cell's total, so that it is positive: meant for
    log-normalised expression, not for centred data.

    Examples
    --------
    >>> from betavi.likelihoods import LIKELIHOODS
    >>> LIKELIHOODS["normal"].of_whole_numbers
    False
    """

    of_whole_numbers = False

    def log_theta_at(self, start: Start) -> Tensor:
        return log_deviation_at(start.unexplained(start.variance))

    def distribution(
        self, h: Tensor, log_size: Tensor, batch: Tensor, label: Tensor | None
    ) -> Normal:
        scale, mu = self.rate(h, log_size)
        deviation = self.theta(h, batch, label)
        return Normal(mu, deviation, validate_args=False, normal_mu=scale)

    def log_mass(self, px: Normal, counts: Tensor) -> Tensor:
        return log_mass_between(px.loc, px.scale, *count_cell(counts))

    def log_detection(self, px: Normal, counts: Tensor) -> Tensor:
        return log_detection_at(px.loc, px.scale, torch.tensor(0.5), counts)

    def parameters_of(self, px: Normal) -> dict[str, Tensor]:
        """Return mean and standard deviation."""
        return {"mean": px.loc, "dispersions": px.scale}
