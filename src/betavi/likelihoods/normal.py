"""Normal values, for data that are not counts."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import torch
from scvi.distributions import Normal

from betavi.likelihoods._base import Likelihood
from betavi.likelihoods._mass import count_cell, log_detection_at, log_mass_between

if TYPE_CHECKING:
    from torch import Tensor

    from betavi.data.start import Start

SMALLEST_VARIANCE = 1e-4
"""Of a feature that hardly varies, where training starts."""


class NormalLikelihood(Likelihood):
    """Values with a standard deviation, ``theta``, free of their mean.

    As in SCVI the mean is a share of the cell's total, so that it is positive: meant for
    log-normalised expression, not for centred data.

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
    >>> likelihood = LIKELIHOODS["normal"](8, 20, "softmax", "gene", DispersionSizes(1, 1))
    >>> log_size = torch.tensor([[100.0], [1000.0]]).log()
    >>> px = likelihood(torch.ones(2, 8), log_size, torch.zeros(2, 1, dtype=torch.long), None)
    >>> px.mean.sum(dim=1).round().tolist()
    [100.0, 1000.0]
    """

    of_whole_numbers: ClassVar[bool] = False

    def log_theta_at(self, start: Start) -> Tensor:
        """Return the log standard deviation that leaves the unexplained share of the variance."""
        return start.unexplained(start.variance).clamp_min(SMALLEST_VARIANCE).sqrt().log()

    def distribution(
        self, h: Tensor, log_size: Tensor, batch: Tensor, label: Tensor | None
    ) -> Normal:
        """See :meth:`betavi.likelihoods.Likelihood.distribution`."""
        scale, mu = self.rate(h, log_size)
        deviation = self.theta(h, batch, label)
        return Normal(mu, deviation, validate_args=False, normal_mu=scale)

    def log_mass(self, px: Normal, counts: Tensor) -> Tensor:
        """See :meth:`betavi.likelihoods.Likelihood.log_mass`."""
        return log_mass_between(px.loc, px.scale, *count_cell(counts))

    def log_detection(self, px: Normal, counts: Tensor) -> Tensor:
        """See :meth:`betavi.likelihoods.Likelihood.log_detection`."""
        return log_detection_at(px.loc, px.scale, torch.tensor(0.5), counts)

    def parameters_of(self, px: Normal) -> dict[str, Tensor]:
        """Return mean and standard deviation."""
        return {"mean": px.loc, "dispersions": px.scale}
