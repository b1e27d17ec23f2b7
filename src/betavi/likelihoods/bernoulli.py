"""Whether a feature was seen at all."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, constraints

from betavi.likelihoods._base import Likelihood

if TYPE_CHECKING:
    from torch.types import _size

    from betavi.data.start import Start
    from betavi.likelihoods._dispersion import DispersionSizes


class Detection(Distribution):
    """Whether a Poisson count is positive.

    Parameters
    ----------
    rate
        Mean of the count, ``(..., n_cells, n_features)``.
    scale
        The mean's share of a cell's size.
    """

    arg_constraints: ClassVar = {
        "rate": constraints.nonnegative,
        "scale": constraints.nonnegative,
    }
    support = constraints.nonnegative

    def __init__(self, rate: Tensor, scale: Tensor) -> None:
        self.rate, self.scale = rate, scale
        super().__init__(rate.shape, validate_args=False)

    @property
    def mean(self) -> Tensor:
        """Probability that the feature is seen."""
        return -(-self.rate).expm1()

    @property
    def variance(self) -> Tensor:
        """Variance of whether it is."""
        return self.mean * (-self.rate).exp()

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log-probability that a value is positive, or that it is not, in nats."""
        tiny = torch.finfo(self.rate.dtype).tiny
        seen = (-(-self.rate).expm1()).clamp_min(tiny).log()
        return seen.where(value > 0, -self.rate)

    @torch.no_grad()
    def sample(self, sample_shape: _size = ()) -> Tensor:
        """Draw ones and zeros."""
        return torch.bernoulli(self.mean.expand(self._extended_shape(torch.Size(sample_shape))))

    def get_normalized(self, key: str) -> Tensor:
        """Return the shares of a cell's size, ``"scale"``, or the probabilities, ``"mu"``."""
        if key == "mu":
            return self.mean
        if key == "scale":
            return self.scale
        raise ValueError(f"A Bernoulli distribution has 'mu' and 'scale', not {key!r}.")


class BernoulliLikelihood(Likelihood):
    """Whether a feature is seen; deeper cells see more. How many counts there are is not predicted.

    The probability is that of a Poisson count above zero, ``1 - exp(-rate)``, the complementary
    log-log link. Rates are shares of a total that is log-linear in the cell's size: where values
    were made binary, a cell's size is how many features it has shown, which is fewer than there
    would be counts, and where they were not, features are seen in clumps. Both numbers are learned.

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
    Ashuach et al. (2023), MultiVI, whose chromatin is Bernoulli, too, by another link.

    Examples
    --------
    >>> import torch
    >>> from betavi.likelihoods import LIKELIHOODS, DispersionSizes
    >>> likelihood = LIKELIHOODS["bernoulli"](8, 20, "softmax", "gene", DispersionSizes(1, 1))
    >>> log_size = torch.tensor([[1.0], [10.0]]).log()
    >>> px = likelihood(torch.ones(2, 8), log_size, torch.zeros(2, 1, dtype=torch.long), None)
    >>> bool((px.mean[1] > px.mean[0]).all())
    True
    """

    has_dispersion: ClassVar[bool] = False
    is_of_counts: ClassVar[bool] = False
    is_of_detection: ClassVar[bool] = True

    def add_heads(self, n_hidden: int, n_features: int, sizes: DispersionSizes) -> None:
        """See :meth:`betavi.likelihoods.Likelihood.add_heads`."""
        self.log_excess = nn.Parameter(torch.zeros(1))
        self.power = nn.Parameter(torch.ones(1))

    def log_theta_at(self, start: Start) -> None:
        """Return nothing: the variance follows from the mean."""

    def distribution(
        self, h: Tensor, log_size: Tensor, batch: Tensor, label: Tensor | None
    ) -> Detection:
        """See :meth:`betavi.likelihoods.Likelihood.distribution`."""
        scale, rate = self.rate(h, self.log_excess + self.power * log_size)
        return Detection(rate, scale)

    def parameters_of(self, px: Detection) -> dict[str, Tensor]:
        """Return the probability of being seen."""
        return {"mean": px.mean}
