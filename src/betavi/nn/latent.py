"""Latent variables: normal, on the simplex, or deterministic."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Normal, constraints, register_kl

if TYPE_CHECKING:
    from torch.types import _size


class Latent(nn.Module):
    """Kind of latent variable z: a function of a draw u, whose posterior starts as a normal one.

    The identity, unless a kind overrides a method.

    Examples
    --------
    >>> from torch.distributions import Normal
    >>> from betavi.nn import LATENTS
    >>> latent = LATENTS["ln"]()
    >>> u = latent.posterior(Normal(torch.zeros(3, 2), 1.0)).rsample()
    >>> latent.transform(u).sum(dim=1).round(decimals=3).tolist()
    [1.0, 1.0, 1.0]
    """

    is_deterministic: ClassVar[bool] = False
    """True if the posterior is a point, whose rate under any prior would be infinite."""

    is_on_simplex: ClassVar[bool] = False
    """True if the dimensions of z are positive and sum to 1."""

    def posterior(self, fused: Normal) -> Distribution:
        """Return q(u given x), ``(n_cells, n_latent)``, for the fused normal posterior."""
        return fused

    def transform(self, u: Tensor) -> Tensor:
        """Return z for draws u, of the same shape."""
        return u

    def mean(self, posterior: Distribution, n_samples: int) -> Tensor:
        """Return the mean of z, ``(n_cells, n_latent)``, from draws if it has no closed form."""
        return posterior.mean


class NormalLatent(Latent):
    """z is normal.

    Reference: Kingma & Welling (2014), Auto-encoding variational Bayes.

    Examples
    --------
    >>> from betavi.nn import LATENTS
    >>> LATENTS["normal"]().transform(torch.ones(2)).tolist()
    [1.0, 1.0]
    """


class LogisticNormalLatent(Latent):
    """z is on the simplex, the softmax of a normal variable.

    Reference: Gayoso et al. (2021), Joint probabilistic modeling of single-cell multi-omic data
    with totalVI.

    Examples
    --------
    >>> from betavi.nn import LATENTS
    >>> LATENTS["ln"]().transform(torch.zeros(1, 4)).tolist()
    [[0.25, 0.25, 0.25, 0.25]]
    """

    is_on_simplex = True

    def transform(self, u: Tensor) -> Tensor:
        return u.softmax(dim=-1)

    def mean(self, posterior: Distribution, n_samples: int) -> Tensor:
        return self.transform(posterior.sample((n_samples,))).mean(dim=0)


class Point(Distribution):
    """All mass at ``loc``: the limit of a normal posterior whose variance vanishes.

    Its divergence from a prior would be infinite for every encoder alike, and counts as zero.

    Parameters
    ----------
    loc
        Position of the mass, ``(n_cells, n_latent)``.

    Examples
    --------
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
        return torch.zeros_like(self.loc)

    @property
    def variance(self) -> Tensor:
        return torch.zeros_like(self.loc)

    @property
    def mean(self) -> Tensor:
        return self.loc

    def rsample(self, sample_shape: _size = ()) -> Tensor:
        return self.loc.expand(self._extended_shape(torch.Size(sample_shape)))


@register_kl(Point, Distribution)
def _kl_point(p: Point, _q: Distribution) -> Tensor:
    # infinite for every encoder alike: an autoencoder is trained without the term
    return torch.zeros_like(p.loc)


class DeterministicLatent(Latent):
    """z is the posterior's mean: an autoencoder without a rate.

    Examples
    --------
    >>> from betavi.nn import LATENTS
    >>> LATENTS["deterministic"]().posterior(Normal(torch.ones(2), 3.0)).rsample().tolist()
    [1.0, 1.0]
    """

    is_deterministic = True

    def posterior(self, fused: Normal) -> Distribution:
        return Point(fused.loc)


LATENTS: dict[str, type[Latent]] = {
    "normal": NormalLatent,
    "ln": LogisticNormalLatent,
    "deterministic": DeterministicLatent,
}
"""Latent variables by the name a user gives, ``latent_distribution=``."""
