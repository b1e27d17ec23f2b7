"""Mixture of experts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from betavi.nn.fusion._base import Experts, Fusion, Masks, masks, mixture, prior_where_missing
from betavi.nn.mixtures import NormalMixture

if TYPE_CHECKING:
    from torch.distributions import Distribution, Normal


class MixtureOfExperts(Fusion):
    """Mixture of the present experts, with equal weights.

    Each expert learns to explain the whole cell alone. Experts do not sharpen each other.

    Reference: Shi et al. (2019), Variational mixture-of-experts autoencoders for multi-modal deep
    generative models.

    Examples
    --------
    >>> import torch
    >>> from torch.distributions import Normal
    >>> from betavi.nn import FUSIONS
    >>> experts = {name: Normal(torch.zeros(2, 1), 1.0) for name in ("rna", "adt")}
    >>> q = FUSIONS["moe"]()(experts, present={"adt": torch.tensor([[True], [False]])})
    >>> q.weights.t().tolist()
    [[0.5, 0.5], [1.0, 0.0]]
    """

    def forward(self, experts: Experts, present: Masks) -> NormalMixture:
        here = masks(experts, present)
        parts = [prior_where_missing(experts[name], here[name]) for name in experts]
        return mixture(parts, [here[name].squeeze(1) for name in experts])

    def full_posterior(self, q: Distribution) -> Normal | None:
        """Return the experts if every cell has only one. No expert uses several modalities."""
        assert isinstance(q, NormalMixture)
        is_alone = bool(((q.weights > 0).sum(dim=0) == 1).all())
        return q.last if is_alone else None
