"""Fusion: one posterior from the experts of a cell."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.distributions import Normal

if TYPE_CHECKING:
    from collections.abc import Mapping


class Fusion(nn.Module, ABC):
    """A rule that makes one posterior of the experts of a cell."""

    @abstractmethod
    def forward(self, experts: Mapping[str, Normal], present: Mapping[str, Tensor]) -> Normal:
        """Return q(z given x), a normal distribution of shape ``(n_cells, n_latent)``.

        Parameters
        ----------
        experts
            q(z given x_m) by modality, each ``(n_cells, n_latent)``. The rows of cells that lack
            the modality are arbitrary.
        present
            Which cells have the modality, boolean, ``(n_cells, 1)``; a modality without an entry
            is present in every cell.
        """


class SingleExpert(Fusion):
    """The posterior of one modality is its expert, as in SCVI."""

    def forward(self, experts: Mapping[str, Normal], present: Mapping[str, Tensor]) -> Normal:
        """Return the only expert."""
        (expert,) = experts.values()
        return expert


class ProductOfExperts(Fusion):
    r"""Precision-weighted product of the experts present and the prior's expert.

    With precisions :math:`\tau_m = 1 / \sigma_m^2`, zero where the modality is missing, the
    posterior has precision :math:`1 + \sum_m \tau_m` and mean
    :math:`\sum_m \tau_m \mu_m / (1 + \sum_m \tau_m)`. A cell without any modality has the prior.

    References
    ----------
    Wu & Goodman (2018), Multimodal generative models for scalable weakly-supervised learning.
    """

    def forward(self, experts: Mapping[str, Normal], present: Mapping[str, Tensor]) -> Normal:
        """Return the product; a missing expert's values, even NaN, have no influence."""
        first = next(iter(experts.values())).loc
        precision, weighted = torch.ones_like(first), torch.zeros_like(first)
        for name, expert in experts.items():
            here = present.get(name, torch.ones_like(first, dtype=torch.bool))
            tau = expert.scale.square().reciprocal()
            precision = precision + torch.where(here, tau, 0.0)
            weighted = weighted + torch.where(here, tau * expert.loc, 0.0)
        return Normal(weighted / precision, precision.rsqrt(), validate_args=False)


FUSIONS: dict[str, type[Fusion]] = {"single": SingleExpert, "poe": ProductOfExperts}
"""Fusion rules by the name a user gives."""
