"""Normal log counts, a fast approximation."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints
from torch.distributions import Normal as TorchNormal

from betavi.data.start_values import TARGET_SUM
from betavi.likelihoods._base import Likelihood, get_normalized
from betavi.likelihoods._scale import Shares
from betavi.likelihoods.normal import (
    count_interval,
    log_detection_at,
    log_deviation_at,
    log_mass_between,
)

if TYPE_CHECKING:
    from torch.types import _size

    from betavi.data.start_values import Start

SMALLEST_LOG_SIZE = -30.0
"""Smallest log size, which keeps the unit of a cell without counts within single precision."""


class LogNormal(Distribution):
    """Distribution of counts x with a normal log(1 + unit * x).

    ``loc``: mean of the logs. ``deviation``: standard deviation of the logs. Both broadcast to
    ``(..., n_cells, n_features)``. ``unit``: factor of the counts of a cell, ``(..., n_cells, 1)``.
    """

    arg_constraints: ClassVar = {
        "loc": constraints.real,
        "deviation": constraints.positive,
        "unit": constraints.positive,
    }
    support = constraints.real
    get_normalized = get_normalized

    def __init__(self, loc: Tensor, deviation: Tensor, unit: Tensor) -> None:
        self.loc, self.deviation, self.unit = torch.broadcast_tensors(loc, deviation, unit)
        super().__init__(self.loc.shape, validate_args=False)

    @property
    def logs(self) -> TorchNormal:
        """The distribution of log(1 + unit * x)."""
        return TorchNormal(self.loc, self.deviation, validate_args=False)

    @property
    def mean(self) -> Tensor:
        """Expected count."""
        return (self.loc + self.deviation.square() / 2).expm1() / self.unit

    @property
    def variance(self) -> Tensor:
        spread = self.deviation.square()
        return spread.expm1() * (2 * self.loc + spread).exp() / self.unit.square()

    def log_prob(self, value: Tensor) -> Tensor:
        scaled = self.unit * value
        return self.logs.log_prob(scaled.log1p()) + self.unit.log() - scaled.log1p()

    @torch.no_grad()
    def sample(self, sample_shape: _size = ()) -> Tensor:
        """Draw counts. They are not whole numbers, and can be slightly below zero."""
        return self.logs.sample(torch.Size(sample_shape)).expm1() / self.unit

    @property
    def scale(self) -> Tensor:
        """Expected shares of a cell's total."""
        positive = self.mean.clamp_min(0)
        return positive / positive.sum(dim=-1, keepdim=True)

    def log_mass(self, counts: Tensor) -> Tensor:
        low, high = count_interval(counts)
        log_low = (self.unit * low.clamp_min(0)).log1p().where(counts > 0, low)
        return log_mass_between(self.loc, self.deviation, log_low, (self.unit * high).log1p())

    def log_detection(self, counts: Tensor) -> Tensor:
        return log_detection_at(self.loc, self.deviation, (self.unit / 2).log1p(), counts)


class LogNormalLikelihood(Likelihood):
    """Counts whose log(1 + counts per 10,000) is normal, as PCA of log counts assumes.

    With size factors, log(1 + counts per unit of size) is normal.

    Examples
    --------
    >>> from betavi.likelihoods import LIKELIHOODS
    >>> LIKELIHOODS["lognormal"].scale_is_local
    False
    """

    of_whole_numbers = False
    scale_is_local = False

    @property
    def target_sum(self) -> float:
        """Total of a cell after scaling. With size factors, one unit of size."""
        return TARGET_SUM if isinstance(self.positive, Shares) else 1.0

    @torch.no_grad()
    def start_at(self, start: Start) -> None:
        self.unscaled.bias.copy_(start.log_mean)
        self.dispersion.start_at(self.log_theta_at(start))

    def log_theta_at(self, start: Start) -> Tensor:
        return log_deviation_at(start.unexplained(start.log_variance))

    def distribution(
        self, h: Tensor, log_size: Tensor, batch: Tensor, label: Tensor | None
    ) -> LogNormal:
        unit = self.target_sum * (-log_size.clamp_min(SMALLEST_LOG_SIZE)).exp()
        return LogNormal(self.head(self.unscaled, h), self.theta(h, batch, label), unit)

    def log_mass(self, px: LogNormal, counts: Tensor) -> Tensor:
        return px.log_mass(counts)

    def log_detection(self, px: LogNormal, counts: Tensor) -> Tensor:
        return px.log_detection(counts)

    def parameters_of(self, px: LogNormal) -> dict[str, Tensor]:
        return {"mean": px.loc, "dispersions": px.deviation}
