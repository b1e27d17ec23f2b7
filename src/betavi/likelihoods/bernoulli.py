"""Detection of a feature: presence of any counts."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, constraints

from betavi.likelihoods._base import Likelihood, get_normalized

if TYPE_CHECKING:
    from torch.types import _size

    from betavi.data.start_values import Start
    from betavi.likelihoods.dispersion import DispersionSizes


class Detection(Distribution):
    """Indicator of a positive Poisson count with mean ``rate``, a share ``scale`` of the size."""

    arg_constraints: ClassVar = {
        "rate": constraints.nonnegative,
        "scale": constraints.nonnegative,
    }
    support = constraints.nonnegative
    get_normalized = get_normalized

    def __init__(self, rate: Tensor, scale: Tensor) -> None:
        self.rate, self.scale = rate, scale
        super().__init__(rate.shape, validate_args=False)

    @property
    def mean(self) -> Tensor:
        """Probability of a positive count."""
        return -(-self.rate).expm1()

    @property
    def variance(self) -> Tensor:
        return self.mean * (-self.rate).exp()

    def log_prob(self, value: Tensor) -> Tensor:
        tiny = torch.finfo(self.rate.dtype).tiny
        seen = (-(-self.rate).expm1()).clamp_min(tiny).log()
        return seen.where(value > 0, -self.rate)

    @torch.no_grad()
    def sample(self, sample_shape: _size = ()) -> Tensor:
        return torch.bernoulli(self.mean.expand(self._extended_shape(torch.Size(sample_shape))))


class BernoulliLikelihood(Likelihood):
    """Detection of features, more frequent in deeper cells. Numbers of counts are not predicted.

    The probability is the probability of a Poisson count above zero, ``1 - exp(-rate)``. This is
    the complementary log-log link. ``rate`` is a share of a total. The log of the total is a
    learned linear function of the log size of the cell.

    Reference: Ashuach et al. (2023), MultiVI, with Bernoulli chromatin and another link.

    Examples
    --------
    >>> from betavi.likelihoods.bernoulli import Detection
    >>> Detection(rate=torch.tensor([0.1, 10.0]), scale=torch.ones(2)).mean.round().tolist()
    [0.0, 1.0]
    """

    has_dispersion = False
    is_of_counts = False
    is_of_detection = True

    def add_heads(self, n_hidden: int, n_features: int, sizes: DispersionSizes) -> None:
        self.log_excess = nn.Parameter(torch.zeros(1))
        self.power = nn.Parameter(torch.ones(1))

    def log_theta_at(self, start: Start) -> None:
        """Return None: the variance follows from the mean."""

    def distribution(
        self, h: Tensor, log_size: Tensor, batch: Tensor, label: Tensor | None
    ) -> Detection:
        scale, rate = self.rate(h, self.log_excess + self.power * log_size)
        return Detection(rate, scale)

    def parameters_of(self, px: Detection) -> dict[str, Tensor]:
        return {"mean": px.mean}
