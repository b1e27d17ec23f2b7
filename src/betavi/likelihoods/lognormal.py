"""Normal log counts: the fast approximation."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints
from torch.distributions import Normal as TorchNormal

from betavi.data.start import TARGET_SUM
from betavi.likelihoods._base import Likelihood, Shares
from betavi.likelihoods._mass import count_cell, log_detection_at, log_mass_between

if TYPE_CHECKING:
    from torch.types import _size

    from betavi.data.start import Start

SMALLEST_VARIANCE = 1e-4
"""Of a feature that hardly varies, where training starts."""


SMALLEST_LOG_SIZE = -30.0
"""Keeps the unit of a cell without counts within single precision."""


class LogNormal(Distribution):
    """Counts x of which log(1 + unit * x) is normal.

    Parameters
    ----------
    loc, deviation
        Mean and standard deviation of the logs, broadcastable to ``(..., n_cells, n_features)``.
    unit
        What a count is multiplied by before the logarithm, ``(..., n_cells, 1)``.

    Examples
    --------
    >>> import torch
    >>> from betavi.likelihoods import LogNormal
    >>> px = LogNormal(loc=torch.zeros(1, 1), deviation=torch.ones(1, 1), unit=torch.ones(1, 1))
    >>> px.logs.mean.item(), round(px.mean.item(), 3)
    (0.0, 0.649)
    """

    arg_constraints: ClassVar = {
        "loc": constraints.real,
        "deviation": constraints.positive,
        "unit": constraints.positive,
    }
    support = constraints.real

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
        """Variance of the count."""
        spread = self.deviation.square()
        return spread.expm1() * (2 * self.loc + spread).exp() / self.unit.square()

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log density of the counts, in nats."""
        scaled = self.unit * value
        return self.logs.log_prob(scaled.log1p()) + self.unit.log() - scaled.log1p()

    @torch.no_grad()
    def sample(self, sample_shape: _size = ()) -> Tensor:
        """Draw counts, which are no integers and can be a little below zero."""
        return self.logs.sample(torch.Size(sample_shape)).expm1() / self.unit

    def get_normalized(self, key: str) -> Tensor:
        """Return the shares of a cell's total, ``"scale"``, or the expected counts, ``"mu"``."""
        if key == "mu":
            return self.mean
        if key == "scale":
            positive = self.mean.clamp_min(0)
            return positive / positive.sum(dim=-1, keepdim=True)
        raise ValueError(f"A log-normal distribution has 'mu' and 'scale', not {key!r}.")


def lognormal_mass(px: LogNormal, counts: Tensor) -> Tensor:
    """Return the log of the density's integral over half a count on both sides, in nats.

    Parameters
    ----------
    px
        The distribution, ``(..., n_cells, n_features)``.
    counts
        Integers, ``(n_cells, n_features)``. For zero it is everything below a half.

    Returns
    -------
    Log-probabilities, ``(..., n_cells, n_features)``, in double precision.

    Examples
    --------
    >>> import torch
    >>> from betavi.likelihoods import LogNormal, lognormal_mass
    >>> px = LogNormal(*torch.ones(3, 1, 1))
    >>> round(lognormal_mass(px, torch.arange(1000.0)[None]).exp().sum().item(), 3)
    1.0
    """
    low, high = count_cell(counts)
    log_low = (px.unit * low.clamp_min(0)).log1p().where(counts > 0, low)
    return log_mass_between(px.loc, px.deviation, log_low, (px.unit * high).log1p())


def lognormal_detection(px: LogNormal, counts: Tensor) -> Tensor:
    """Return the log-probability that each count is zero, or that it is not, as it is, in nats.

    Parameters
    ----------
    px, counts
        See :func:`lognormal_mass`.

    Returns
    -------
    As of :func:`lognormal_mass`.

    Examples
    --------
    >>> import torch
    >>> from betavi.likelihoods import LogNormal, lognormal_detection
    >>> px = LogNormal(*torch.ones(3, 1, 1))
    >>> round(lognormal_detection(px, torch.tensor([[0.0, 3.0]])).exp().sum().item(), 3)
    1.0
    """
    return log_detection_at(px.loc, px.deviation, (px.unit / 2).log1p(), counts)


class LogNormalLikelihood(Likelihood):
    """Counts whose log(1 + counts per 10,000) is normal: what PCA of log counts assumes.

    With size factors it is log(1 + counts per unit of size). The density is no probability of a
    count; :func:`betavi.metrics.compare_likelihoods` integrates it.

    Parameters
    ----------
    n_hidden, n_features, scale_activation, dispersion, sizes, dial
        See :class:`~betavi.likelihoods.Likelihood`.

    Raises
    ------
    ValueError
        If a word is not in its table.

    Examples
    --------
    >>> import torch
    >>> from betavi.likelihoods import LIKELIHOODS, DispersionSizes
    >>> likelihood = LIKELIHOODS["lognormal"](8, 20, "softmax", "gene", DispersionSizes(1, 1))
    >>> log_size = torch.tensor([[100.0], [1000.0]]).log()
    >>> px = likelihood(torch.ones(2, 8), log_size, torch.zeros(2, 1, dtype=torch.long), None)
    >>> torch.equal(px.loc[0], px.loc[1]), torch.allclose(10 * px.mean[0], px.mean[1])
    (True, True)
    """

    of_whole_numbers: ClassVar[bool] = False
    scale_is_local: ClassVar[bool] = False

    @property
    def target_sum(self) -> float:
        """What a cell's total is brought to; with size factors, one unit of size."""
        return TARGET_SUM if isinstance(self.positive, Shares) else 1.0

    @torch.no_grad()
    def start_at(self, start: Start) -> None:
        """Decode the mean of the logs for every cell, before training."""
        self.unscaled.bias.copy_(start.log_mean)
        self.dispersion.start_at(self.log_theta_at(start))

    def log_theta_at(self, start: Start) -> Tensor:
        """Return the log standard deviation that leaves the unexplained share of the variance."""
        left = start.unexplained(start.log_variance)
        return left.clamp_min(SMALLEST_VARIANCE).sqrt().log()

    def distribution(
        self, h: Tensor, log_size: Tensor, batch: Tensor, label: Tensor | None
    ) -> LogNormal:
        """See :meth:`betavi.likelihoods.Likelihood.distribution`."""
        unit = self.target_sum * (-log_size.clamp_min(SMALLEST_LOG_SIZE)).exp()
        return LogNormal(self.head(self.unscaled, h), self.theta(h, batch, label), unit)

    def log_mass(self, px: LogNormal, counts: Tensor) -> Tensor:
        """See :meth:`betavi.likelihoods.Likelihood.log_mass`."""
        return lognormal_mass(px, counts)

    def log_detection(self, px: LogNormal, counts: Tensor) -> Tensor:
        """See :meth:`betavi.likelihoods.Likelihood.log_detection`."""
        return lognormal_detection(px, counts)

    def parameters_of(self, px: LogNormal) -> dict[str, Tensor]:
        """Return mean and standard deviation of the logs."""
        return {"mean": px.loc, "dispersions": px.deviation}
