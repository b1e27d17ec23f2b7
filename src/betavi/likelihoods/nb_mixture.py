"""Counts of antibodies: what sticks to any cell, and what sticks to a protein that is there."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar

import torch
from scvi import distributions
from torch import Tensor, nn
from torch.nn.functional import logsigmoid, softplus

from betavi.kernels import nb_log_prob
from betavi.likelihoods._base import Likelihood
from betavi.likelihoods.nb import gamma_posterior, overdispersion_at, positive_gamma

if TYPE_CHECKING:
    from torch.types import _size

    from betavi.data.start import Start
    from betavi.likelihoods._dispersion import DispersionSizes

START_OF_FOREGROUND = 4.0
"""Mean of the foreground over that of the background when training starts."""


class NegativeBinomialMixture(distributions.NegativeBinomialMixture):
    """scvi-tools' mixture of a background, ``mu1``, and a foreground, ``mu2``."""

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log-probability of each count, in nats."""
        background = nb_log_prob(value, self.mu1, self.theta1) + logsigmoid(self.mixture_logits)
        foreground = nb_log_prob(value, self.mu2, self.theta1) + logsigmoid(-self.mixture_logits)
        return torch.logaddexp(background, foreground)

    @property
    def variance(self) -> Tensor:
        """Variance of each count, within and between the two."""
        share = self.mixture_probs
        squares = sum(
            p * (mu + mu.square() * (1 + 1 / self.theta1))
            for p, mu in ((share, self.mu1), (1 - share, self.mu2))
        )
        return squares - self.mean.square()

    @property
    def scale(self) -> Tensor:
        """Expected count of the foreground: expression, without what sticks to any cell."""
        return (1 - self.mixture_probs) * self.mu2

    def get_normalized(self, key: str) -> Tensor:
        """Return the expected counts, ``"mu"``, or those of the foreground, ``"scale"``."""
        if key == "mu":
            return self.mean
        if key == "scale":
            return self.scale
        raise ValueError(f"A mixture of backgrounds has 'mu' and 'scale', not {key!r}.")

    @torch.no_grad()
    def sample(self, sample_shape: _size = ()) -> Tensor:
        """Draw counts, each from one of the two."""
        shape = self._extended_shape(torch.Size(sample_shape))
        is_background = torch.bernoulli(self.mixture_probs.expand(*sample_shape, *self.mu1.shape))
        mu = torch.where(is_background.bool(), self.mu1, self.mu2)
        rate = positive_gamma(self.theta1.expand(mu.shape), mu).sample()
        return torch.poisson(rate.clamp(max=1e8)).view(*shape, *self.mu1.shape)


class NegativeBinomialMixtureLikelihood(Likelihood):
    """Counts of a background that any cell has, or of a foreground above it.

    The background's mean is that of the feature in a batch, times a size that is decoded from z;
    the foreground is the background times a factor above one. No library size is read: how much of
    all proteins a cell has is biology, and is decoded.

    Parameters
    ----------
    n_hidden, n_features, scale_activation, dispersion, sizes, dial
        See :class:`~betavi.likelihoods.Likelihood`.

    Raises
    ------
    ValueError
        If a word is not in its table.

    References
    ----------
    Gayoso et al. (2021), Joint probabilistic modeling of single-cell multi-omic data with totalVI.
    Their background is a latent variable of each cell and protein; here it is a parameter.

    Examples
    --------
    >>> import torch
    >>> from betavi.likelihoods import LIKELIHOODS, DispersionSizes
    >>> likelihood = LIKELIHOODS["nb_mixture"](8, 20, "softmax", "gene", DispersionSizes(1, 1))
    >>> codes = torch.zeros(3, 1, dtype=torch.long)
    >>> px = likelihood(torch.ones(3, 8), torch.ones(3, 1), codes, None)
    >>> bool((px.mu2 > px.mu1).all()), px.mean.shape
    (True, torch.Size([3, 20]))
    """

    reads_size: ClassVar[bool] = False
    has_background: ClassVar[bool] = True
    learns_from_counts: ClassVar[bool] = True
    per_batch: ClassVar[tuple[str, ...]] = ("background",)

    def add_heads(self, n_hidden: int, n_features: int, sizes: DispersionSizes) -> None:
        """See :meth:`betavi.likelihoods.Likelihood.add_heads`."""
        self.background = nn.Parameter(torch.zeros(n_features, max(sizes.n_batch, 1)))
        self.size = nn.Linear(n_hidden, 1)
        self.is_background = nn.Linear(n_hidden, n_features)

    @torch.no_grad()
    def start_at(self, start: Start) -> None:
        """Start at a background below the mean and a foreground above it."""
        super().start_at(start)
        half = (1 + START_OF_FOREGROUND) / 2
        self.background.copy_((start.mean.clamp_min(1e-4) / half).log()[:, None])
        self.unscaled.bias.fill_(math.log(math.expm1(START_OF_FOREGROUND - 1)))
        self.size.bias.zero_()
        self.is_background.bias.zero_()

    def log_theta_at(self, start: Start) -> Tensor:
        """Return the log inverse dispersion by the method of moments, as if of one component."""
        return overdispersion_at(start)

    def distribution(
        self, h: Tensor, log_size: Tensor, batch: Tensor, label: Tensor | None
    ) -> NegativeBinomialMixture:
        """See :meth:`betavi.likelihoods.Likelihood.distribution`; ``log_size`` is not read."""
        sticking = self.of_chosen(self.background.t()[batch.squeeze(-1)])
        background = (sticking + self.size(h)).exp()
        foreground = background * (1 + softplus(self.head(self.unscaled, h)))
        return NegativeBinomialMixture(
            background, foreground, self.theta(h, batch, label), self.head(self.is_background, h)
        )

    def posterior(self, px: NegativeBinomialMixture, counts: Tensor) -> tuple[Tensor, Tensor]:
        """See :meth:`betavi.likelihoods.Likelihood.posterior`; the count also says which of the two."""
        log_odds = nb_log_prob(counts, px.mu1, px.theta1) - nb_log_prob(counts, px.mu2, px.theta1)
        share = torch.sigmoid(log_odds + px.mixture_logits)
        low, low_variance = gamma_posterior(px.mu1, px.theta1, counts)
        high, high_variance = gamma_posterior(px.mu2, px.theta1, counts)
        within = share * low_variance + (1 - share) * high_variance
        between = share * (1 - share) * (high - low).square()
        return share * low + (1 - share) * high, within + between

    def parameters_of(self, px: NegativeBinomialMixture) -> dict[str, Tensor]:
        """Return mean, dispersion, background, foreground and the probability of the latter."""
        return {
            "mean": px.mean,
            "dispersions": px.theta1,
            "background": px.mu1,
            "foreground": px.mu2,
            "foreground_probability": 1 - px.mixture_probs,
        }
