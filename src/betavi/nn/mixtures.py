"""Mixture of normal distributions as a posterior."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor
from torch.distributions import Distribution, Normal, constraints

if TYPE_CHECKING:
    from torch.types import _size


class NormalMixture(Distribution):
    r"""Mixture of normal distributions for each cell.

    .. math:: q(u) = \sum_k w_k \, N(u; \mu_k, \sigma_k^2)

    Parameters
    ----------
    loc
        Mean of each component, ``(n_components, n_cells, n_latent)``.
    scale
        Standard deviation of each component, ``(n_components, n_cells, n_latent)``.
    weights
        Weight of each component, ``(n_components, n_cells)``. The weights of a cell sum to 1.

    References
    ----------
    Shi et al. (2019), Variational mixture-of-experts autoencoders, for samples of each component.

    Examples
    --------
    >>> from betavi.nn import NormalMixture
    >>> loc = torch.tensor([-1.0, 1.0]).view(2, 1, 1)
    >>> q = NormalMixture(loc, torch.ones(2, 1, 1), torch.full((2, 1), 0.5))
    >>> q.loc.item(), q.variance.item(), q.strata().shape
    (0.0, 2.0, torch.Size([2, 1, 1]))
    """

    arg_constraints: ClassVar = {}
    support = constraints.real_vector
    has_rsample = True

    def __init__(self, loc: Tensor, scale: Tensor, weights: Tensor) -> None:
        self.components = Normal(loc, scale, validate_args=False)
        self.weights = weights
        super().__init__(loc.shape[1:-1], loc.shape[-1:], validate_args=False)

    @property
    def mean(self) -> Tensor:
        """Mean of each cell, ``(n_cells, n_latent)``."""
        return self.average(self.components.loc)

    @property
    def variance(self) -> Tensor:
        """Variance of each cell, within and between components, ``(n_cells, n_latent)``."""
        loc, scale = self.components.loc, self.components.scale
        return self.average(scale.square() + loc.square()) - self.mean.square()

    @property
    def loc(self) -> Tensor:
        """The mean, under its name in a normal distribution."""
        return self.mean

    @property
    def scale(self) -> Tensor:
        """Standard deviation, ``(n_cells, n_latent)``."""
        return self.variance.sqrt()

    @property
    def last(self) -> Normal:
        """For each cell, the last component with a weight above zero."""
        numbers = torch.arange(len(self.weights), device=self.weights.device)[:, None]
        return self._chosen(torch.where(self.weights > 0, numbers, -1).argmax(dim=0))

    def _chosen(self, components: Tensor) -> Normal:
        cells = torch.arange(self.weights.shape[1], device=components.device)
        loc, scale = (
            self.components.loc[components, cells],
            self.components.scale[components, cells],
        )
        return Normal(loc, scale, validate_args=False)

    def average(self, values: Tensor) -> Tensor:
        """Return the weighted mean of one value per component, ``(n_components, n_cells, ...)``."""
        weights = self.weights.view(*self.weights.shape, *[1] * (values.ndim - 2))
        return (weights * values).sum(dim=0)

    def strata(self) -> Tensor:
        """Return one sample of each component, ``(n_components, n_cells, n_latent)``.

        The average of a function over these samples, by :meth:`average`, is an unbiased estimate of
        the expectation of the function. The variance is lower than with the same number of samples
        of the whole mixture.
        """
        return self.components.rsample()

    def rsample(self, sample_shape: _size = ()) -> Tensor:
        """Return samples, with gradients through the chosen component."""
        shape = torch.Size(sample_shape)
        if not shape.numel():
            return self.mean.new_empty(*shape, *self.mean.shape)
        numbers = torch.multinomial(self.weights.t(), shape.numel(), replacement=True).t()
        chosen = self._chosen(numbers)
        draws = chosen.loc + chosen.scale * torch.randn_like(chosen.loc)
        return draws.view(*shape, *draws.shape[1:])

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log density, ``(..., n_cells)``, nats."""
        each = self.components.log_prob(value.unsqueeze(-3)).sum(dim=-1)
        return (each + self.weights.log()).logsumexp(dim=-2)
