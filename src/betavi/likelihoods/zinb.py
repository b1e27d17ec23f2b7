"""Zero-inflated negative binomial counts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from scvi import distributions
from torch import Tensor

from betavi.kernels import nb_log_prob, zinb_log_prob
from betavi.kernels.layers import TransposedLinear
from betavi.likelihoods._base import Likelihood
from betavi.likelihoods.nb import gamma_posterior, overdispersion_at, positive_gamma

if TYPE_CHECKING:
    from betavi.data.start_values import Start
    from betavi.likelihoods.dispersion import DispersionSizes


class ZeroInflatedNegativeBinomial(distributions.ZeroInflatedNegativeBinomial):
    """scvi-tools' distribution, with the log-probability of :mod:`betavi.kernels`."""

    def log_prob(self, value: Tensor) -> Tensor:
        return zinb_log_prob(value, self.mu, self.theta, self.zi_logits)

    def _gamma(self) -> torch.distributions.Gamma:
        return positive_gamma(self.theta, self.mu)


class ZeroInflatedNegativeBinomialLikelihood(Likelihood):
    """Negative binomial counts, replaced by zero with a decoded probability.

    The expected count is ``(1 - zi_probs) * mu``. As in SCVI, ``get_normalized("mu")`` is ``mu``.

    Reference: Lopez et al. (2018), Deep generative modeling for single-cell transcriptomics.

    Examples
    --------
    >>> from betavi.likelihoods import LIKELIHOODS
    >>> LIKELIHOODS["zinb"].compiled_layers
    ('unscaled', 'dropout')
    """

    rows = "zinb_rows"
    compiled_layers = ("unscaled", "dropout")
    is_gamma_poisson = True
    learns_from_counts = True

    def add_heads(self, n_hidden: int, n_features: int, sizes: DispersionSizes) -> None:
        self.dropout = TransposedLinear(n_hidden, n_features)

    def log_theta_at(self, start: Start) -> Tensor:
        return overdispersion_at(start)

    def distribution(
        self, h: Tensor, log_size: Tensor, batch: Tensor, label: Tensor | None
    ) -> ZeroInflatedNegativeBinomial:
        scale, mu = self.rate(h, log_size)
        return ZeroInflatedNegativeBinomial(
            mu=mu,
            theta=self.theta(h, batch, label),
            zi_logits=self.head(self.dropout, h),
            scale=scale,
        )

    def posterior(self, px: ZeroInflatedNegativeBinomial, counts: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and variance. By Bayes' rule, a zero count may be an inflated zero.

        An inflated zero is assumed to be zero again in a second measurement.
        """
        mean, variance = gamma_posterior(px.mu, px.theta, counts)
        log_zero = nb_log_prob(torch.zeros_like(mean), px.mu, px.theta)
        caught = torch.sigmoid(log_zero - px.zi_logits).where(counts == 0, 1.0)
        return caught * mean, caught * (variance + (1 - caught) * mean.square())

    def parameters_of(self, px: ZeroInflatedNegativeBinomial) -> dict[str, Tensor]:
        return {"mean": px.mu, "dispersions": px.theta, "dropout": px.zi_probs}
