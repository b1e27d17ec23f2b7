"""Interface of fusion rules, and the products and mixtures that they use."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Normal

from betavi.nn.mixtures import NormalMixture

Experts = Mapping[str, Normal]
"""Posteriors q(z given x_m) by modality, each ``(n_cells, n_latent)``."""

Masks = Mapping[str, Tensor]
"""Boolean masks by modality, ``(n_cells, 1)``, True for cells that have the modality."""


class Fusion(nn.Module, ABC):
    """Rule that combines a cell's experts q(z given x_m) into one posterior q(z given x).

    A cell without any modality has the standard normal prior as its posterior.

    Examples
    --------
    >>> import torch
    >>> from torch.distributions import Normal
    >>> from betavi.nn import FUSIONS
    >>> experts = {name: Normal(torch.ones(1, 1), 1.0) for name in ("rna", "adt")}
    >>> q = FUSIONS["poe"]()(experts, present={"adt": torch.tensor([[False]])})
    >>> q.loc.item(), round(q.variance.item(), 3)
    (0.5, 0.5)
    """

    is_of_one: ClassVar[bool] = False
    """True for a rule that takes exactly one expert."""

    @abstractmethod
    def forward(self, experts: Experts, present: Masks) -> Normal | NormalMixture:
        """Return q(z given x), ``(n_cells, n_latent)``.

        Parameters
        ----------
        experts
            Experts by modality. Rows of cells without the modality may be NaN. Do not use them.
        present
            Masks by modality. A modality without a mask is present in every cell.
        """

    def full_posterior(self, q: Distribution) -> Normal | None:
        """Return the part of ``q`` that uses all modalities of each cell. None if no part does."""
        assert isinstance(q, Normal)
        return q

    def penalty(self, rate: Tensor, q: Distribution, experts: Experts, present: Masks) -> Tensor:
        """Return the term of the loss that β weights, ``(n_cells,)``, nats. By default, the rate.

        Parameters
        ----------
        rate
            KL divergence of each cell's posterior from the prior, ``(n_cells,)``, in nats.
        q, experts, present
            Result and arguments of :meth:`forward`.
        """
        return rate


def masks(experts: Experts, present: Masks) -> dict[str, Tensor]:
    """Return a mask for every modality, ``(n_cells, 1)``."""
    everywhere = torch.ones_like(next(iter(experts.values())).loc[:, :1], dtype=torch.bool)
    return {name: present.get(name, everywhere) for name in experts}


def n_present(here: Masks) -> Tensor:
    """Return the number of modalities of each cell, ``(n_cells,)``."""
    return torch.stack(list(here.values())).sum(dim=0).squeeze(1)


def natural_parameters(experts: Experts, here: Masks) -> dict[str, tuple[Tensor, Tensor]]:
    """Return precision, and precision times mean, of each expert. Zero for a missing modality."""
    found = {}
    for name, expert in experts.items():
        tau = expert.scale.square().reciprocal()
        weighted = torch.where(here[name], tau * expert.loc, 0.0)
        found[name] = torch.where(here[name], tau, 0.0), weighted
    return found


def product(naturals: Collection[tuple[Tensor, Tensor]], prior: float = 1.0) -> Normal:
    """Return the product of the experts and a power of the prior. Without experts, the prior."""
    total = torch.stack([tau for tau, _ in naturals]).sum(dim=0)
    precision = torch.where(total > 0, prior + total, 1.0)
    weighted = torch.stack([loc for _, loc in naturals]).sum(dim=0)
    return Normal(weighted / precision, precision.rsqrt(), validate_args=False)


def prior_where_missing(expert: Normal, here: Tensor) -> Normal:
    """Return the expert, replaced by the prior in cells that lack the modality."""
    loc, scale = torch.where(here, expert.loc, 0.0), torch.where(here, expert.scale, 1.0)
    return Normal(loc, scale, validate_args=False)


def mixture(parts: list[Normal], exists: list[Tensor]) -> NormalMixture:
    """Return the mixture of each cell's existing components, with equal weights.

    If no component of a cell exists, all components are used.
    """
    shares = torch.stack(exists).to(parts[0].loc)
    nowhere = shares.sum(dim=0) == 0
    shares = torch.where(nowhere, 1.0, shares)
    loc, scale = (torch.stack([getattr(part, name) for part in parts]) for name in ("loc", "scale"))
    return NormalMixture(loc, scale, shares / shares.sum(dim=0))
