"""Negative binomial counts."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from scvi import distributions
from torch import Tensor

from betavi.kernels import nb_log_prob
from betavi.likelihoods._base import Likelihood

if TYPE_CHECKING:
    from betavi.data.start_values import Start

LOG_THETA_RANGE = (-2.0, 4.0)
"""Range of the initial log inverse dispersion, because moments of rare genes are noisy."""


class NegativeBinomial(distributions.NegativeBinomial):
    """scvi-tools' negative binomial, with the log-probability of :mod:`betavi.kernels`."""

    def log_prob(self, value: Tensor) -> Tensor:
        return nb_log_prob(value, self.mu, self.theta)

    def _gamma(self) -> torch.distributions.Gamma:
        return positive_gamma(self.theta, self.mu)


def positive_gamma(theta: Tensor, mu: Tensor) -> torch.distributions.Gamma:
    """Return the gamma distribution of an expected count.

    A mean of 0 becomes the smallest float.
    """
    tiny = torch.finfo(mu.dtype).tiny
    rate = (theta / mu.clamp_min(tiny)).clamp(tiny, torch.finfo(mu.dtype).max)
    return torch.distributions.Gamma(theta.clamp_min(tiny), rate)


def gamma_posterior(mu: Tensor, theta: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and variance of the expected count of a cell, given z and the observed count.

    Given z, the expected count is gamma-distributed, with mean mu and shape theta. Given also the
    observed count x, its shape is theta + x (Huang et al., 2018, SAVER).
    """
    share = mu / (theta + mu)
    mean = share * (theta + counts)
    return mean, share * mean


def overdispersion_at(start: Start) -> Tensor:
    """Return the log inverse dispersion that matches the excess variance that z does not explain.

    The variance of a negative binomial exceeds its mean by the squared mean over theta.
    """
    excess = start.unexplained(start.variance - start.mean) / start.mean_square
    low, high = LOG_THETA_RANGE
    return -excess.clamp(math.exp(-high), math.exp(-low)).log()


class NegativeBinomialLikelihood(Likelihood):
    """Counts with mean ``mu`` and variance ``mu + mu**2 / theta``.

    Reference: Svensson (2020), Droplet scRNA-seq is not zero-inflated.

    Examples
    --------
    >>> from betavi.likelihoods.nb import NegativeBinomial
    >>> NegativeBinomial(mu=torch.tensor([3.0]), theta=torch.tensor([1.0])).variance.item()
    12.0
    """

    rows = "nb_rows"
    is_gamma_poisson = True
    learns_from_counts = True

    def posterior(self, px: NegativeBinomial, counts: Tensor) -> tuple[Tensor, Tensor]:
        return gamma_posterior(px.mu, px.theta, counts)

    def log_theta_at(self, start: Start) -> Tensor:
        return overdispersion_at(start)

    def distribution(
        self, h: Tensor, log_size: Tensor, batch: Tensor, label: Tensor | None
    ) -> NegativeBinomial:
        scale, mu = self.rate(h, log_size)
        return NegativeBinomial(mu=mu, theta=self.theta(h, batch, label), scale=scale)

    def parameters_of(self, px: NegativeBinomial) -> dict[str, Tensor]:
        return {"mean": px.mu, "dispersions": px.theta}
