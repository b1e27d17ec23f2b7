"""Antibody counts: a background in every cell, and a foreground bound to the protein."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from scvi import distributions
from torch import Tensor, nn
from torch.nn.functional import logsigmoid, softplus

from betavi.kernels import nb_log_prob
from betavi.likelihoods._base import Likelihood, get_normalized
from betavi.likelihoods.nb import gamma_posterior, overdispersion_at, positive_gamma

if TYPE_CHECKING:
    from torch.types import _size

    from betavi.data.start_values import Start
    from betavi.likelihoods.dispersion import DispersionSizes

START_OF_FOREGROUND = 4.0
"""Initial ratio of the foreground's mean to the background's mean."""


class NegativeBinomialMixture(distributions.NegativeBinomialMixture):
    """scvi-tools' mixture of a background, ``mu1``, and a foreground, ``mu2``."""

    get_normalized = get_normalized

    def log_prob(self, value: Tensor) -> Tensor:
        background = nb_log_prob(value, self.mu1, self.theta1) + logsigmoid(self.mixture_logits)
        foreground = nb_log_prob(value, self.mu2, self.theta1) + logsigmoid(-self.mixture_logits)
        return torch.logaddexp(background, foreground)

    @property
    def variance(self) -> Tensor:
        share = self.mixture_probs
        squares = sum(
            p * (mu + mu.square() * (1 + 1 / self.theta1))
            for p, mu in ((share, self.mu1), (1 - share, self.mu2))
        )
        return squares - self.mean.square()

    @property
    def scale(self) -> Tensor:
        """Expected count of the foreground: expression without the background."""
        return (1 - self.mixture_probs) * self.mu2

    @torch.no_grad()
    def sample(self, sample_shape: _size = ()) -> Tensor:
        shape = self._extended_shape(torch.Size(sample_shape))
        is_background = torch.bernoulli(self.mixture_probs.expand(*sample_shape, *self.mu1.shape))
        mu = torch.where(is_background.bool(), self.mu1, self.mu2)
        rate = positive_gamma(self.theta1.expand(mu.shape), mu).sample()
        return torch.poisson(rate.clamp(max=1e8)).view(*shape, *self.mu1.shape)


class NegativeBinomialMixtureLikelihood(Likelihood):
    """Counts of a background found in every cell, or of a foreground above it.

    The mean of the background is a parameter of each feature and batch, times a size decoded from
    z. The foreground's mean is the background's mean times a factor above one. The library size is
    not read, because a cell's total protein count is biological.

    Reference: Gayoso et al. (2021), Joint probabilistic modeling of single-cell multi-omic data
    with totalVI. There, the background is latent for each cell and protein. Here it is a parameter.

    Examples
    --------
    >>> from betavi.likelihoods import LIKELIHOODS
    >>> LIKELIHOODS["nb_mixture"].has_background, LIKELIHOODS["nb_mixture"].reads_size
    (True, False)
    """

    reads_size = False
    has_background = True
    learns_from_counts = True
    per_batch = ("background",)

    def add_heads(self, n_hidden: int, n_features: int, sizes: DispersionSizes) -> None:
        self.background = nn.Parameter(torch.zeros(n_features, max(sizes.n_batch, 1)))
        self.size = nn.Linear(n_hidden, 1)
        self.is_background = nn.Linear(n_hidden, n_features)

    @torch.no_grad()
    def start_at(self, start: Start) -> None:
        """Start with a background below the mean and a foreground above it."""
        super().start_at(start)
        half = (1 + START_OF_FOREGROUND) / 2
        self.background.copy_((start.mean.clamp_min(1e-4) / half).log()[:, None])
        self.unscaled.bias.fill_(math.log(math.expm1(START_OF_FOREGROUND - 1)))
        self.size.bias.zero_()
        self.is_background.bias.zero_()

    def log_theta_at(self, start: Start) -> Tensor:
        return overdispersion_at(start)

    def distribution(
        self, h: Tensor, log_size: Tensor, batch: Tensor, label: Tensor | None
    ) -> NegativeBinomialMixture:
        log_background = self.of_chosen(self.background.t()[batch.squeeze(-1)])
        background = (log_background + self.size(h)).exp()
        foreground = background * (1 + softplus(self.head(self.unscaled, h)))
        return NegativeBinomialMixture(
            background, foreground, self.theta(h, batch, label), self.head(self.is_background, h)
        )

    def posterior(self, px: NegativeBinomialMixture, counts: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and variance.

        The count also shows if background or foreground is more likely.
        """
        log_odds = nb_log_prob(counts, px.mu1, px.theta1) - nb_log_prob(counts, px.mu2, px.theta1)
        share = torch.sigmoid(log_odds + px.mixture_logits)
        low, low_variance = gamma_posterior(px.mu1, px.theta1, counts)
        high, high_variance = gamma_posterior(px.mu2, px.theta1, counts)
        within = share * low_variance + (1 - share) * high_variance
        between = share * (1 - share) * (high - low).square()
        return share * low + (1 - share) * high, within + between

    def parameters_of(self, px: NegativeBinomialMixture) -> dict[str, Tensor]:
        return {
            "mean": px.mean,
            "dispersions": px.theta1,
            "background": px.mu1,
            "foreground": px.mu2,
            "foreground_probability": 1 - px.mixture_probs,
        }
