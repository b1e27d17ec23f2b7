"""Poisson counts."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import torch
from scvi import distributions
from torch import Tensor
from torch.distributions import constraints

from betavi.kernels import poisson_log_prob
from betavi.likelihoods._base import Likelihood

if TYPE_CHECKING:
    from betavi.data.start_values import Start

MAX_SAMPLED_RATE = 1e8
"""Largest rate that torch's sampler accepts. scvi-tools clips at the same rate."""

NEARLY_NO_DISPERSION = 1e8
"""Inverse dispersion at which a negative binomial is a Poisson distribution in single precision."""


class Poisson(distributions.Poisson):
    """scvi-tools' Poisson, with the log-probability of :mod:`betavi.kernels`.

    scvi-tools reads ``mu`` and ``theta`` for differential expression and correlations. Here they
    describe the negative binomial that has this distribution as its limit.
    """

    arg_constraints: ClassVar = {
        "rate": constraints.nonnegative,
        # scvi-tools passes the scale on when it concatenates minibatches
        "scale": constraints.nonnegative,
    }

    def __init__(
        self, rate: Tensor, validate_args: bool | None = False, scale: Tensor | None = None
    ) -> None:
        super().__init__(rate=rate, validate_args=validate_args, scale=scale)

    @property
    def mu(self) -> Tensor:
        return self.rate

    @mu.setter
    def mu(self, value: Tensor) -> None:
        self.rate = value

    @property
    def theta(self) -> Tensor:
        return torch.full_like(self.rate, NEARLY_NO_DISPERSION)

    def log_prob(self, value: Tensor) -> Tensor:
        return poisson_log_prob(value, self.rate)

    @torch.inference_mode()
    def sample(self, sample_shape: torch.Size | tuple[int, ...] = ()) -> Tensor:
        size = self._extended_shape(torch.Size(sample_shape))
        return torch.poisson(self.rate.clamp_max(MAX_SAMPLED_RATE).expand(size))


class PoissonLikelihood(Likelihood):
    """Counts with a variance equal to their mean.

    Examples
    --------
    >>> from betavi.likelihoods.poisson import Poisson
    >>> Poisson(torch.tensor([3.0])).variance.item()
    3.0
    """

    has_dispersion = False
    rows = "poisson_rows"
    is_gamma_poisson = True

    def log_theta_at(self, start: Start) -> None:
        """Return None: the variance is the mean."""

    def distribution(
        self, h: Tensor, log_size: Tensor, batch: Tensor, label: Tensor | None
    ) -> Poisson:
        scale, rate = self.rate(h, log_size)
        return Poisson(rate, scale=scale)

    def parameters_of(self, px: Poisson) -> dict[str, Tensor]:
        return {"mean": px.rate}
