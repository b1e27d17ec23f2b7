"""What kind of variable z is: normal, logistic normal, or a point."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Normal, constraints, register_kl

if TYPE_CHECKING:
    from torch.types import _size


class Point(Distribution):
    """All mass at ``loc``: the posterior of an autoencoder, the limit of a vanishing variance.

    Its divergence from a prior would be infinite for every encoder alike, and counts as zero.

    Parameters
    ----------
    loc
        Where the mass is, ``(n_cells, n_latent)``.

    Examples
    --------
    >>> import torch
    >>> from betavi.nn import Point
    >>> q = Point(torch.tensor([[1.0, -2.0]]))
    >>> q.rsample().tolist(), q.variance.tolist()
    ([[1.0, -2.0]], [[0.0, 0.0]])
    """

    arg_constraints: ClassVar = {"loc": constraints.real}
    support = constraints.real
    has_rsample = True

    def __init__(self, loc: Tensor) -> None:
        self.loc = loc
        super().__init__(loc.shape, validate_args=False)

    @property
    def scale(self) -> Tensor:
        """Standard deviation: zero."""
        return torch.zeros_like(self.loc)

    @property
    def variance(self) -> Tensor:
        """Variance: zero."""
        return torch.zeros_like(self.loc)

    @property
    def mean(self) -> Tensor:
        """The point."""
        return self.loc

    def rsample(self, sample_shape: _size = ()) -> Tensor:
        """Return the point itself."""
        return self.loc.expand(self._extended_shape(torch.Size(sample_shape)))


@register_kl(Point, Distribution)
def _kl_point(p: Point, _q: Distribution) -> Tensor:
    # Infinite for every encoder alike: an autoencoder is trained without the term.
    return torch.zeros_like(p.loc)


class Latent(nn.Module, ABC):
    """What becomes of the fused normal posterior before a decoder reads it.

    Examples
    --------
    >>> import torch
    >>> from torch.distributions import Normal
    >>> from betavi.nn import LATENTS
    >>> latent = LATENTS["ln"]()
    >>> u = latent.posterior(Normal(torch.zeros(3, 2), 1.0)).rsample()
    >>> latent.transform(u).sum(dim=1).round(decimals=3).tolist()
    [1.0, 1.0, 1.0]
    """

    has_no_rate: ClassVar[bool] = False
    """Whether the posterior is a point, whose rate under any prior would be infinite."""

    @abstractmethod
    def posterior(self, fused: Normal) -> Distribution:
        """Return the distribution to sample, ``(n_cells, n_latent)``."""

    @abstractmethod
    def transform(self, u: Tensor) -> Tensor:
        """Return z for a sample of the posterior, of the same shape."""

    def mean(self, posterior: Distribution, n_samples: int) -> Tensor:
        """Return the mean of z, ``(n_cells, n_latent)``, from draws if it has no closed form."""
        return posterior.mean


class NormalLatent(Latent):
    """z is normal.

    References
    ----------
    Kingma & Welling (2014), Auto-encoding variational Bayes.

    Examples
    --------
    >>> import torch
    >>> from torch.distributions import Normal
    >>> from betavi.nn import LATENTS
    >>> fused = Normal(torch.zeros(3, 2), 1.0)
    >>> LATENTS["normal"]().posterior(fused) is fused
    True
    """

    def posterior(self, fused: Normal) -> Distribution:
        """Return the posterior as it is."""
        return fused

    def transform(self, u: Tensor) -> Tensor:
        """Return the sample as it is."""
        return u


class LogisticNormalLatent(Latent):
    """z is on the simplex, the softmax of a normal variable.

    References
    ----------
    Gayoso et al. (2021), Joint probabilistic modeling of single-cell multi-omic data with totalVI.

    Examples
    --------
    >>> import torch
    >>> from betavi.nn import LATENTS
    >>> LATENTS["ln"]().transform(torch.zeros(1, 4)).tolist()
    [[0.25, 0.25, 0.25, 0.25]]
    """

    def posterior(self, fused: Normal) -> Distribution:
        """Return the posterior of the variable before the softmax."""
        return fused

    def transform(self, u: Tensor) -> Tensor:
        """Return shares that sum to one over the dimensions."""
        return u.softmax(dim=-1)

    def mean(self, posterior: Distribution, n_samples: int) -> Tensor:
        """Return the mean of the shares over draws."""
        return self.transform(posterior.sample((n_samples,))).mean(dim=0)


class DeterministicLatent(Latent):
    """z is the posterior's mean: an autoencoder without a rate.

    Examples
    --------
    >>> import torch
    >>> from torch.distributions import Normal
    >>> from betavi.nn import LATENTS
    >>> fused = Normal(torch.tensor([[1.0, 2.0]]), 3.0)
    >>> LATENTS["deterministic"]().posterior(fused).rsample().tolist()
    [[1.0, 2.0]]
    """

    has_no_rate: ClassVar[bool] = True

    def posterior(self, fused: Normal) -> Distribution:
        """Return the point at the posterior's mean."""
        return Point(fused.loc)

    def transform(self, u: Tensor) -> Tensor:
        """Return the point as it is."""
        return u


LATENTS: dict[str, type[Latent]] = {
    "normal": NormalLatent,
    "ln": LogisticNormalLatent,
    "deterministic": DeterministicLatent,
}
"""Latent variables by the name a user gives, ``latent_distribution=``."""
