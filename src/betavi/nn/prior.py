"""Priors: the distribution of latent positions before any data are seen."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.distributions import (
    Categorical,
    Distribution,
    Independent,
    MixtureSameFamily,
    Normal,
)


class Prior(nn.Module, ABC):
    """Prior p(z), or p(u) where z is a function of u.

    Parameters
    ----------
    n_latent
        Number of latent dimensions.
    n_components
        Number of components of a mixture; not used by other priors.

    Examples
    --------
    >>> from betavi.nn import PRIORS
    >>> prior = PRIORS["mixture"](n_latent=2, n_components=3)
    >>> prior(None).sample((5,)).shape
    torch.Size([5, 2])
    """

    reads_pseudo_cells: ClassVar[bool] = False
    """True if the components are posteriors of learned cells, see :class:`~betavi.nn.PseudoCells`."""

    @abstractmethod
    def __init__(self, n_latent: int, n_components: int) -> None:
        super().__init__()

    @abstractmethod
    def forward(self, pseudo_posteriors: Normal | None) -> Distribution:
        """Return a distribution over the last axis, ``n_latent`` long.

        ``pseudo_posteriors``, ``(n_components, n_latent)``, are the posteriors of the learned
        cells, if the prior reads them.
        """


class StandardNormal(Prior):
    """Independent standard normal dimensions; the rate is exact.

    Parameters
    ----------
    n_latent, n_components
        See :class:`Prior`.

    Reference: Kingma & Welling (2014), Auto-encoding variational Bayes.

    Examples
    --------
    >>> from betavi.nn import StandardNormal
    >>> StandardNormal(n_latent=2, n_components=1)(None).stddev.tolist()
    [1.0, 1.0]
    """

    zero: Tensor

    def __init__(self, n_latent: int, n_components: int) -> None:
        super().__init__(n_latent, n_components)
        self.register_buffer("zero", torch.zeros(n_latent), persistent=False)

    def forward(self, pseudo_posteriors: Normal | None) -> Normal:
        return Normal(self.zero, torch.ones_like(self.zero), validate_args=False)


class VampPrior(Prior):
    """The mean of the posteriors of learned cells; the rate is estimated at each cell's draw.

    Reference: Tomczak & Welling (2018), VAE with a VampPrior.

    Examples
    --------
    >>> from betavi.nn import PRIORS
    >>> learned = Normal(torch.tensor([[-1.0], [1.0]]), 1.0)
    >>> round(PRIORS["vamp"](n_latent=1, n_components=2)(learned).variance.item(), 3)
    2.0
    """

    reads_pseudo_cells = True
    equal: Tensor

    def __init__(self, n_latent: int, n_components: int) -> None:
        super().__init__(n_latent, n_components)
        self.register_buffer("equal", torch.zeros(n_components), persistent=False)

    def forward(self, pseudo_posteriors: Normal | None) -> MixtureSameFamily:
        assert pseudo_posteriors is not None
        return _mixture(self.equal, pseudo_posteriors)


class GaussianMixture(Prior):
    """A mixture of normal components, all learned; the rate is estimated at each cell's draw.

    Reference: Dilokthanakul et al. (2016), Deep unsupervised clustering with Gaussian mixture VAEs.

    Examples
    --------
    >>> from betavi.nn import PRIORS
    >>> PRIORS["mixture"](n_latent=2, n_components=4)(None).mixture_distribution.probs.tolist()
    [0.25, 0.25, 0.25, 0.25]
    """

    def __init__(self, n_latent: int, n_components: int) -> None:
        super().__init__(n_latent, n_components)
        self.logits = nn.Parameter(torch.zeros(n_components))
        # apart from each other, so that they do not all learn the same
        self.loc = nn.Parameter(torch.randn(n_components, n_latent))
        self.log_scale = nn.Parameter(torch.zeros(n_components, n_latent))

    def forward(self, pseudo_posteriors: Normal | None) -> MixtureSameFamily:
        return _mixture(self.logits, Normal(self.loc, self.log_scale.exp(), validate_args=False))


def _mixture(logits: Tensor, components: Normal) -> MixtureSameFamily:
    """Return a mixture of normal components, ``(n_components, n_latent)``."""
    return MixtureSameFamily(
        Categorical(logits=logits, validate_args=False),
        Independent(components, 1, validate_args=False),
        validate_args=False,
    )


PRIORS: dict[str, type[Prior]] = {
    "standard_normal": StandardNormal,
    "vamp": VampPrior,
    "mixture": GaussianMixture,
}
"""Priors by the name a user gives, ``prior=``."""
