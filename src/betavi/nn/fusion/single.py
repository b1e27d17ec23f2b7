"""Expert of the only modality."""

from __future__ import annotations

from typing import TYPE_CHECKING

from betavi.nn.fusion._base import Experts, Fusion, Masks

if TYPE_CHECKING:
    from torch.distributions import Normal


class SingleExpert(Fusion):
    """The expert of the only modality as the posterior, as in SCVI.

    Reference: Lopez et al. (2018), Deep generative modeling for single-cell transcriptomics.

    Examples
    --------
    >>> import torch
    >>> from torch.distributions import Normal
    >>> from betavi.nn import FUSIONS
    >>> expert = Normal(torch.zeros(3, 2), 1.0)
    >>> FUSIONS["single"]()({"rna": expert}, present={}) is expert
    True
    """

    is_of_one = True

    def forward(self, experts: Experts, present: Masks) -> Normal:
        (expert,) = experts.values()
        return expert
