"""The expert of the only modality."""

from __future__ import annotations

from typing import TYPE_CHECKING

from betavi.nn.fusion._base import Experts, Fusion, Masks

if TYPE_CHECKING:
    from torch.distributions import Normal


class SingleExpert(Fusion):
    """The expert of the only modality is the posterior, as in SCVI.

    References
    ----------
    Lopez et al. (2018), Deep generative modeling for single-cell transcriptomics.

    Examples
    --------
    >>> from betavi.nn import FUSIONS
    >>> FUSIONS["single"].is_of_one
    True
    """

    is_of_one = True

    def forward(self, experts: Experts, present: Masks) -> Normal:
        (expert,) = experts.values()
        return expert
