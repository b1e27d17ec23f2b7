"""Normal values, for data other than counts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from scvi.distributions import Normal

from betavi.likelihoods._base import Likelihood

if TYPE_CHECKING:
    from torch import Tensor

    from betavi.data.start_values import Start

SMALLEST_VARIANCE = 1e-4
"""Smallest variance of a feature at the start of training."""


def log_deviation_at(unexplained: Tensor) -> Tensor:
    """Return the log standard deviation of an unexplained variance."""
    return unexplained.clamp_min(SMALLEST_VARIANCE).sqrt().log()


def count_interval(counts: Tensor) -> tuple[Tensor, Tensor]:
    """Return the ends of the interval that rounds to each count.

    For zero, the lower end is infinite.
    """
    return (counts - 0.5).where(counts > 0, -torch.inf), counts + 0.5


def log_detection_at(loc: Tensor, deviation: Tensor, edge: Tensor, counts: Tensor) -> Tensor:
    """Return log P(y > edge) where there is a count, and log P(y < edge) elsewhere.

    Both probabilities are computed directly. One minus the other would round a small probability to
    zero.
    """
    distance = (edge.double() - loc.double()) / deviation.double()
    return torch.special.log_ndtr(distance.where(counts == 0, -distance))


def log_mass_between(loc: Tensor, deviation: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Return log P(low < y < high) of a normal y, in double precision. Ends may be infinite."""
    a, b = ((end.double() - loc.double()) / deviation.double() for end in (low, high))
    # in the upper tail both probabilities are 1 in floating point: mirror them
    mirrored = a > 0
    a, b = a.where(~mirrored, -b), b.where(~mirrored, -a)
    log_below = torch.special.log_ndtr(b)
    share = (torch.special.log_ndtr(a) - log_below).exp()
    return log_below + torch.log1p(-share)


class NormalLikelihood(Likelihood):
    """Normal values whose standard deviation, ``theta``, does not depend on their mean.

    As in SCVI, the mean is a positive share of the cell's total. Do not use this likelihood for
    centred data.

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
        return log_mass_between(px.loc, px.scale, *count_interval(counts))

    def log_detection(self, px: Normal, counts: Tensor) -> Tensor:
        return log_detection_at(px.loc, px.scale, torch.tensor(0.5), counts)

    def parameters_of(self, px: Normal) -> dict[str, Tensor]:
        return {"mean": px.loc, "dispersions": px.scale}
