"""Product of experts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from betavi.nn.fusion._base import Experts, Fusion, Masks, masks, natural_parameters, product

if TYPE_CHECKING:
    from torch.distributions import Normal


class ProductOfExperts(Fusion):
    r"""Precision-weighted product of the present experts and the prior.

    With precisions :math:`\tau_m = 1 / \sigma_m^2`, zero where the modality is missing, the posterior
    has precision :math:`1 + \sum_m \tau_m` and mean :math:`\sum_m \tau_m \mu_m / (1 + \sum_m \tau_m)`.

    Reference: Wu & Goodman (2018), Multimodal generative models for scalable weakly-supervised
    learning.

    Examples
    --------
    >>> import torch
    >>> from torch.distributions import Normal
    >>> from betavi.nn import FUSIONS
    >>> experts = {name: Normal(torch.ones(1, 1), 1.0) for name in ("rna", "adt")}
    >>> q = FUSIONS["poe"]()(experts, present={})
    >>> round(q.loc.item(), 3), round(q.variance.item(), 3)
    (0.667, 0.333)
    """

    def forward(self, experts: Experts, present: Masks) -> Normal:
        return product(natural_parameters(experts, masks(experts, present)).values())
