"""Interface of latent variables."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from torch import nn

if TYPE_CHECKING:
    from torch import Tensor
    from torch.distributions import Distribution, Normal


class Latent(nn.Module):
    """Latent variable z, a function of a sample u of a posterior.

    The fused posterior is normal. By default, u has this posterior and z is u. Subclasses can
    change both.

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

    is_deterministic: ClassVar[bool] = False
    """True if the posterior is a point, whose rate would be infinite under any prior."""

    is_on_simplex: ClassVar[bool] = False
    """True if the dimensions of z are positive and sum to 1."""

    def posterior(self, fused: Normal) -> Distribution:
        """Return q(u given x), ``(n_cells, n_latent)``, for the fused normal posterior."""
        return fused

    def transform(self, u: Tensor) -> Tensor:
        """Return z, the input of the decoder, for samples u of the posterior, in the same shape."""
        return u

    def mean(self, posterior: Distribution, n_samples: int) -> Tensor:
        """Return the mean of z, ``(n_cells, n_latent)``. Without a formula, average samples."""
        return posterior.mean
