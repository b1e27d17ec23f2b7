"""Logistic normal latent variable."""

from __future__ import annotations

from typing import TYPE_CHECKING

from betavi.nn.latent._base import Latent

if TYPE_CHECKING:
    from torch import Tensor
    from torch.distributions import Distribution


class LogisticNormalLatent(Latent):
    """z on the simplex: the softmax of a normal variable.

    Reference: Gayoso et al. (2021), Joint probabilistic modeling of single-cell multi-omic data
    with totalVI.

    Examples
    --------
    >>> import torch
    >>> from betavi.nn import LATENTS
    >>> LATENTS["ln"]().transform(torch.zeros(1, 4)).tolist()
    [[0.25, 0.25, 0.25, 0.25]]
    """

    is_on_simplex = True

    def transform(self, u: Tensor) -> Tensor:
        return u.softmax(dim=-1)

    def mean(self, posterior: Distribution, n_samples: int) -> Tensor:
        return self.transform(posterior.sample((n_samples,))).mean(dim=0)
