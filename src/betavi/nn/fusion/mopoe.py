"""Mixture of products of experts."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING

import torch

from betavi.nn.fusion._base import (
    Experts,
    Fusion,
    Masks,
    masks,
    mixture,
    n_present,
    natural_parameters,
    product,
)
from betavi.nn.mixtures import NormalMixture

if TYPE_CHECKING:
    from torch.distributions import Distribution, Normal


class MixtureOfProducts(Fusion):
    """Mixture of the products of experts over subsets of the present modalities.

    Subsets are single modalities, pairs, and all present modalities. With up to three modalities,
    these are all subsets. Masking a modality then gives the same posterior as a model without it.

    Reference: Sutter et al. (2021), Generalized multimodal ELBO.

    Examples
    --------
    >>> import torch
    >>> from torch.distributions import Normal
    >>> from betavi.nn import FUSIONS
    >>> experts = {name: Normal(torch.zeros(1, 2), 1.0) for name in ("rna", "adt", "atac")}
    >>> len(FUSIONS["mopoe"]()(experts, present={}).weights)
    7
    """

    def forward(self, experts: Experts, present: Masks) -> NormalMixture:
        here = masks(experts, present)
        naturals = natural_parameters(experts, here)
        parts, exists = [], []
        for size in (1, 2):
            for subset in combinations(experts, size):
                parts.append(product([naturals[name] for name in subset]))
                exists.append(torch.stack([here[name] for name in subset]).all(dim=0).squeeze(1))
        if len(experts) > 2:
            parts.append(product(naturals.values()))
            exists.append(n_present(here) > 2)
        return mixture(parts, exists)

    def full_posterior(self, q: Distribution) -> Normal | None:
        """Return the product of all experts of each cell, which is its last component."""
        assert isinstance(q, NormalMixture)
        return q.last
