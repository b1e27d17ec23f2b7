"""Decoder of fully connected layers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from scvi.nn import FCLayers

from betavi.nn.beta_condition import BetaLinear, condition_on_beta
from betavi.nn.decoders._base import Decoder

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from betavi.nn.beta_condition import BetaCondition
    from betavi.nn.networks import Architecture


class PlainDecoder(Decoder):
    """Network in which all dimensions interact, as in SCVI.

    Reference: Lopez et al. (2018), Deep generative modeling for single-cell transcriptomics.

    Examples
    --------
    >>> from betavi.nn import DECODERS, Architecture
    >>> decoder = DECODERS["plain"](2, 0, [], Architecture(n_hidden=8))
    >>> decoder(torch.zeros(3, 2)).shape
    torch.Size([3, 8])
    """

    def __init__(
        self,
        n_latent: int,
        n_values: int,
        n_categories: Sequence[int],
        architecture: Architecture,
        beta_condition: BetaCondition | None = None,
    ) -> None:
        super().__init__(n_latent, n_values, n_categories, architecture, beta_condition)
        self.n_hidden = architecture.n_hidden
        self.px_decoder = FCLayers(
            n_in=n_latent + n_values,
            n_out=architecture.n_hidden,
            n_cat_list=n_categories,
            n_layers=architecture.n_layers,
            **architecture.decoder_options(),
        )
        self.turn = None
        if beta_condition is not None:
            condition_on_beta(self.px_decoder, beta_condition)
            self.turn = BetaLinear(n_latent, n_latent, beta_condition)

    def forward(self, z: Tensor, *categories: Tensor) -> Tensor:
        """Return the last hidden layer, ``(..., n_cells, n_hidden)``, for ``z`` with covariates."""
        if self.turn is not None:
            latent, values = z[..., : self.n_latent], z[..., self.n_latent :]
            z = torch.cat([latent + self.turn(latent), values], dim=-1)
        return self.px_decoder(z, *categories)
