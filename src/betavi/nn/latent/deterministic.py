"""Deterministic latent variable: the mean of the encoder."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor
from torch.distributions import Distribution, Normal, constraints, register_kl

from betavi.nn.latent._base import Latent

if TYPE_CHECKING:
    from torch.types import _size


class Point(Distribution):
    """Distribution with all mass at ``loc``, the limit of a normal posterior without variance.

    The KL divergence from any prior would be infinite for every encoder, so it is set to zero.

    Parameters
    ----------
    loc
        Position of the mass, ``(n_cells, n_latent)``.

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
    def variance(self) -> Tensor:
        return torch.zeros_like(self.loc)

    scale = variance

    @property
    def mean(self) -> Tensor:
        return self.loc

    def rsample(self, sample_shape: _size = ()) -> Tensor:
        return self.loc.expand(self._extended_shape(torch.Size(sample_shape)))


@register_kl(Point, Distribution)
def _kl_point(p: Point, _q: Distribution) -> Tensor:
    return torch.zeros_like(p.loc)


class DeterministicLatent(Latent):
    """z equal to the posterior's mean, as in an autoencoder without a rate.

    Examples
    --------
    >>> import torch
    >>> from torch.distributions import Normal
    >>> from betavi.nn import LATENTS
    >>> fused = Normal(torch.tensor([[1.0, 2.0]]), 3.0)
    >>> LATENTS["deterministic"]().posterior(fused).rsample().tolist()
    [[1.0, 2.0]]
    """

    is_deterministic = True

    def posterior(self, fused: Normal) -> Distribution:
        return Point(fused.loc)
