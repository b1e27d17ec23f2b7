"""Decoder in which no two dimensions interact."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from scvi.nn import FCLayers
from torch import Tensor, nn
from torch.nn.functional import softplus

from betavi.nn.beta_condition import BetaFiLM, condition_on_beta
from betavi.nn.decoders._base import Decoder

if TYPE_CHECKING:
    from collections.abc import Sequence

    from betavi.nn.beta_condition import BetaCondition
    from betavi.nn.networks import Architecture

SLOPE, OFFSET = 2.0, -1.0
"""Initial slope and offset of an amplitude. At z = 0, the amplitude is small. Not tuned."""


class AdditiveDecoder(Decoder):
    r"""Sum of programs, two for each dimension: one for high values, one for low values.

    .. math:: \log \text{rate}_g = b_g + \sum_k (a_k^+(z_k) \, w_{kg}^+ + a_k^-(z_k) \, w_{kg}^-) + c_g

    The amplitudes a are increasing and decreasing softplus functions of one dimension. The effects c of
    covariates do not depend on z. So the log fold change of a program is the same in every cell, up to
    the total of the cell.

    With a prior in which dimensions are independent, a decoder without interactions favours axes that
    stand for one process each. The sum is cheaper than the log-sum-exp of DRVI: the output layer is as
    wide as two units for each dimension. Training starts at the programs of a non-negative matrix
    factorisation.

    References
    ----------
    Moinfar & Theis (2024), Unsupervised deep disentangled representation of single-cell omics (DRVI).
    Attias (1999), Independent factor analysis. Lee & Seung (1999), Learning the parts of objects by
    non-negative matrix factorization.

    Examples
    --------
    >>> from betavi.nn import DECODERS, Architecture
    >>> decoder = DECODERS["additive"](3, 0, [2], Architecture())
    >>> decoder(torch.zeros(5, 3), torch.zeros(5, 1)).shape
    torch.Size([5, 8])
    """

    starts_at_programs = True

    def __init__(
        self,
        n_latent: int,
        n_values: int,
        n_categories: Sequence[int],
        architecture: Architecture,
        beta_condition: BetaCondition | None = None,
    ) -> None:
        super().__init__(n_latent, n_values, n_categories, architecture, beta_condition)
        self.slope = nn.Parameter(torch.tensor([SLOPE, -SLOPE]).repeat(n_latent))
        self.offset = nn.Parameter(torch.full((2 * n_latent,), OFFSET))
        self.film = None if beta_condition is None else BetaFiLM(2 * n_latent, beta_condition)
        # FCLayers has no columns for a covariate with one category
        n_columns = n_values + sum(n for n in n_categories if n > 1)
        width = min(n_columns, architecture.n_hidden)
        self.n_hidden = 2 * n_latent + width
        self.px_decoder = None
        if width:
            self.px_decoder = FCLayers(
                n_in=n_values,
                n_out=width,
                n_cat_list=n_categories,
                n_layers=1,
                **architecture.decoder_options(),
            )
            if beta_condition is not None:
                condition_on_beta(self.px_decoder, beta_condition)

    def amplitudes(self, z: Tensor) -> Tensor:
        """Return the amplitudes of both programs of each dimension, ``(..., n_cells, 2 * n_latent)``."""
        activity = z.repeat_interleave(2, dim=-1) * self.slope + self.offset
        return softplus(activity if self.film is None else self.film(activity))

    def forward(self, z: Tensor, *categories: Tensor) -> Tensor:
        """Return the last hidden layer, ``(..., n_cells, n_hidden)``, for ``z`` with covariates."""
        amplitudes = self.amplitudes(z[..., : self.n_latent])
        if self.px_decoder is None:
            return amplitudes
        effects = self.px_decoder(z[..., self.n_latent :], *categories)
        return torch.cat([amplitudes, effects], dim=-1)

    @torch.no_grad()
    def start_at(self, output: nn.Linear, programs: Tensor) -> None:
        """Start the programs of high values at ``programs``, ``(n_latent, n_features)``, in log rates.

        A program is the change of the log rate where z changes by 1. Programs of low values start at 0.
        """
        n_programs = 2 * self.n_latent
        output.weight[:, :n_programs:2] = programs.t().to(output.weight) / SLOPE
        output.weight[:, 1:n_programs:2] = 0.0
