"""Total correlation: a product of experts that agree with the product."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import torch
from torch.distributions import kl_divergence

from betavi.nn.fusion._base import (
    Experts,
    Fusion,
    Masks,
    masks,
    n_present,
    natural_parameters,
    prior_where_missing,
    product,
)

if TYPE_CHECKING:
    from torch import Tensor
    from torch.distributions import Distribution, Normal


class TotalCorrelation(Fusion):
    r"""Product of the present experts, trained so that every expert agrees with the product.

    The prior is not a factor of the product, so a single expert is the posterior. During training,
    the rate :math:`KL(q \| p)` of a cell with M modalities is replaced by

    .. math::

        \frac{M}{M - \alpha} \Big((1 - \alpha) \, KL(q \| p) + \frac{\alpha}{M} \sum_m KL(q \| q_m)\Big)

    This is the objective of the paper, divided by the paper's weight of the distortion. For a cell
    with one modality, the loss is therefore the negative ELBO. Reported rates are KL divergences
    from the prior p.

    Reference: Hwang et al. (2021), Multi-view representation learning via total correlation
    objective.

    Examples
    --------
    >>> import torch
    >>> from torch.distributions import Normal
    >>> from betavi.nn import FUSIONS
    >>> experts = {name: Normal(torch.ones(1, 1), 0.5) for name in ("rna", "adt")}
    >>> q = FUSIONS["mvtcae"]()(experts, present={"adt": torch.tensor([[False]])})
    >>> round(q.loc.item(), 3), round(q.scale.item(), 3)
    (1.0, 0.5)
    """

    # α of the paper's experiments
    alpha: ClassVar[float] = 0.9

    def forward(self, experts: Experts, present: Masks) -> Normal:
        naturals = natural_parameters(experts, masks(experts, present))
        return product(naturals.values(), prior=0.0)

    def penalty(self, rate: Tensor, q: Distribution, experts: Experts, present: Masks) -> Tensor:
        """Return the weighted sum of the rate and the KL divergences from the present experts."""
        here = masks(experts, present)
        number = n_present(here).clamp_min(1)
        total = torch.zeros_like(rate)
        for name, expert in experts.items():
            nats = kl_divergence(q, prior_where_missing(expert, here[name])).sum(dim=-1)
            total = total + nats.where(here[name].squeeze(1), 0.0)
        shares = (1 - self.alpha) * rate + self.alpha * total / number
        return number / (number - self.alpha) * shares
