"""Priors: the distribution that the latent positions of all cells should have."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn
from torch.distributions import Categorical, Distribution, Independent, MixtureSameFamily, Normal

if TYPE_CHECKING:
    from collections.abc import Mapping


class Prior(nn.Module, ABC):
    """p(z), or p(u) where z is a function of u.

    Parameters
    ----------
    n_latent
        Number of latent dimensions.
    n_components
        Number of components of a mixture.

    Examples
    --------
    >>> from betavi.nn import PRIORS
    >>> prior = PRIORS["mixture"](n_latent=2, n_components=3)
    >>> prior(None).sample((5,)).shape
    torch.Size([5, 2])
    """

    reads_pseudo_cells: ClassVar[bool] = False
    """Whether its components are the posteriors of learned cells."""

    @abstractmethod
    def __init__(self, n_latent: int, n_components: int) -> None:
        super().__init__()

    @abstractmethod
    def forward(self, pseudo_posteriors: Normal | None) -> Distribution:
        """Return a distribution over the last axis, ``n_latent`` long.

        Parameters
        ----------
        pseudo_posteriors
            Posteriors of the learned cells, ``(n_components, n_latent)``, if the prior reads them.
        """


class StandardNormal(Prior):
    """Independent standard normal dimensions; the rate is exact.

    Parameters
    ----------
    n_latent, n_components
        See :class:`Prior`; there are no components.

    References
    ----------
    Kingma & Welling (2014), Auto-encoding variational Bayes.

    Examples
    --------
    >>> from betavi.nn import StandardNormal
    >>> p = StandardNormal(n_latent=2, n_components=1)(None)
    >>> p.mean.tolist(), p.stddev.tolist()
    ([0.0, 0.0], [1.0, 1.0])
    """

    zero: Tensor

    def __init__(self, n_latent: int, n_components: int) -> None:
        super().__init__(n_latent, n_components)
        self.register_buffer("zero", torch.zeros(n_latent), persistent=False)

    def forward(self, pseudo_posteriors: Normal | None) -> Normal:
        """Return a distribution that factorises over dimensions."""
        return Normal(self.zero, torch.ones_like(self.zero), validate_args=False)


class GaussianMixture(Prior):
    """A mixture of normal components, all learned; the rate is estimated at each cell's draw.

    Parameters
    ----------
    n_latent, n_components
        See :class:`Prior`.

    References
    ----------
    Dilokthanakul et al. (2016), Deep unsupervised clustering with Gaussian mixture VAEs.

    Examples
    --------
    >>> import torch
    >>> from betavi.nn import PRIORS
    >>> p = PRIORS["mixture"](n_latent=2, n_components=4)(None)
    >>> p.mixture_distribution.probs.tolist(), p.log_prob(torch.zeros(5, 2)).shape
    ([0.25, 0.25, 0.25, 0.25], torch.Size([5]))
    """

    def __init__(self, n_latent: int, n_components: int) -> None:
        super().__init__(n_latent, n_components)
        self.logits = nn.Parameter(torch.zeros(n_components))
        # apart from each other, so that they do not all learn the same
        self.loc = nn.Parameter(torch.randn(n_components, n_latent))
        self.log_scale = nn.Parameter(torch.zeros(n_components, n_latent))

    def forward(self, pseudo_posteriors: Normal | None) -> MixtureSameFamily:
        """Return the mixture."""
        return _mixture(self.logits, Normal(self.loc, self.log_scale.exp(), validate_args=False))


class VampPrior(Prior):
    """The mean of the posteriors of learned cells; the rate is estimated at each cell's draw.

    Parameters
    ----------
    n_latent, n_components
        See :class:`Prior`; there is a learned cell for each component.

    References
    ----------
    Tomczak & Welling (2018), VAE with a VampPrior.

    Examples
    --------
    >>> import torch
    >>> from torch.distributions import Normal
    >>> from betavi.nn import PRIORS
    >>> learned = Normal(torch.tensor([[-1.0], [1.0]]), 1.0)
    >>> p = PRIORS["vamp"](n_latent=1, n_components=2)(learned)
    >>> round(p.mean.item(), 3), round(p.variance.item(), 3)
    (0.0, 2.0)
    """

    reads_pseudo_cells: ClassVar[bool] = True
    equal: Tensor

    def __init__(self, n_latent: int, n_components: int) -> None:
        super().__init__(n_latent, n_components)
        self.register_buffer("equal", torch.zeros(n_components), persistent=False)

    def forward(self, pseudo_posteriors: Normal | None) -> MixtureSameFamily:
        """Return the mixture of the posteriors."""
        assert pseudo_posteriors is not None
        return _mixture(self.equal, pseudo_posteriors)


def _mixture(logits: Tensor, components: Normal) -> MixtureSameFamily:
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


class PseudoCells(nn.Module):
    """Learned inputs of the encoders, as they read them, and the covariates that go with them.

    Parameters
    ----------
    n_cells
        Number of learned cells.
    widths
        Number of features by modality.
    n_continuous, n_categorical
        Number of continuous and of categorical covariates beside the batch.

    References
    ----------
    Tomczak & Welling (2018), VAE with a VampPrior.

    Examples
    --------
    >>> from betavi.nn import PseudoCells
    >>> cells = PseudoCells(5, {"rna": 20, "adt": 3}, n_continuous=0, n_categorical=1)
    >>> cells.h["rna"].shape, cells.present["adt"].all().item()
    (torch.Size([5, 20]), True)
    """

    batch: Tensor
    continuous: Tensor
    categorical: Tensor

    def __init__(
        self, n_cells: int, widths: Mapping[str, int], n_continuous: int, n_categorical: int
    ) -> None:
        super().__init__()
        self.h = nn.ParameterDict(
            {name: nn.Parameter(torch.rand(n_cells, width)) for name, width in widths.items()}
        )
        for name in widths:
            self.register_buffer(_present_key(name), torch.ones(n_cells, 1, dtype=torch.bool))
        self.register_buffer("batch", torch.zeros(n_cells, 1, dtype=torch.long))
        self.register_buffer("continuous", torch.zeros(n_cells, n_continuous))
        self.register_buffer("categorical", torch.zeros(n_cells, n_categorical, dtype=torch.long))

    @property
    def present(self) -> dict[str, Tensor]:
        """Which of them have each modality, ``(n_cells, 1)``."""
        return {name: getattr(self, _present_key(name)) for name in self.h}

    @torch.no_grad()
    def start_at(
        self,
        h: Mapping[str, Tensor],
        batch: Tensor,
        continuous: Tensor | None,
        categorical: Tensor | None,
        present: Mapping[str, Tensor],
    ) -> None:
        """Start from cells: what the encoders read of each modality they have, and the covariates."""
        for name, value in h.items():
            self.h[name].copy_(value)
        for name, mask in present.items():
            getattr(self, _present_key(name)).copy_(mask)
        self.batch.copy_(batch)
        if continuous is not None:
            self.continuous.copy_(continuous)
        if categorical is not None:
            self.categorical.copy_(categorical)


def _present_key(modality: str) -> str:
    return f"has_{modality}"
