"""Interface of priors."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar

from torch import nn
from torch.distributions import Categorical, Independent, MixtureSameFamily

if TYPE_CHECKING:
    from torch import Tensor
    from torch.distributions import Distribution, Normal


class Prior(nn.Module, ABC):
    """Prior p(z), or p(u) where z is a function of u.

    Parameters
    ----------
    n_latent
        Number of latent dimensions.
    n_components
        Number of components of a mixture. Other priors ignore this number.

    Examples
    --------
    >>> from betavi.nn import PRIORS
    >>> prior = PRIORS["mixture"](n_latent=2, n_components=3)
    >>> prior(None).sample((5,)).shape
    torch.Size([5, 2])
    """

    reads_pseudo_cells: ClassVar[bool] = False
    """True if the components are the posteriors of learned cells, ``PseudoCells``."""

    @abstractmethod
    def __init__(self, n_latent: int, n_components: int) -> None:
        super().__init__()

    @abstractmethod
    def forward(self, pseudo_posteriors: Normal | None) -> Distribution:
        """Return a distribution over the last axis, of length ``n_latent``.

        ``pseudo_posteriors`` are the posteriors of learned cells, ``(n_components, n_latent)``.
        None for a prior that does not read learned cells.
        """


def mixture(logits: Tensor, components: Normal) -> MixtureSameFamily:
    """Return a mixture of normal components, ``(n_components, n_latent)``."""
    return MixtureSameFamily(
        Categorical(logits=logits, validate_args=False),
        Independent(components, 1, validate_args=False),
        validate_args=False,
    )
