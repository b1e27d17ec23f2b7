"""Decoder in which no two dimensions interact."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from scvi.nn import FCLayers
from torch import Tensor, nn
from torch.nn.functional import pad, softplus

from betavi.nn.beta_condition import BetaFiLM, condition_on_beta
from betavi.nn.decoders._base import Decoder

if TYPE_CHECKING:
    from collections.abc import Sequence

    from betavi.nn.beta_condition import BetaCondition
    from betavi.nn.networks import Architecture

SLOPE, OFFSET = 2.0, -1.0
"""Initial slope and offset of an amplitude. At z = 0, the amplitude is small. Not tuned."""

COVARIATE_SHARE = 4
"""Hidden units of a plain decoder for each unit of covariates. Not tuned."""


class AdditiveDecoder(Decoder):
    r"""Sum of programs, two for each dimension: one for high values, one for low values.

    .. math:: \log \text{rate}_g = b_g + \sum_k (a_k^+(z_k) \, w_{kg}^+ + a_k^-(z_k) \, w_{kg}^-) + c_g

    The amplitudes a are increasing and decreasing softplus functions of one dimension. The effects c of
    covariates do not depend on z. So the log fold change of a program is the same in every cell, up to
    the total of the cell. This does not hold for likelihoods whose expectation is not the exponential
    of one sum (``"nb_mixture"``, ``"lognormal"``), and not for the latent distribution ``"ln"``.

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
    >>> decoder(torch.zeros(5, 3), torch.zeros(5, 1).long()).shape
    torch.Size([5, 38])
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
        # the width does not depend on the number of batches, because a query may have more
        n_units = max(1, architecture.n_hidden // COVARIATE_SHARE)
        self.n_hidden = 2 * n_latent + n_units
        # the first input is a constant, because there may be no covariates
        self.px_decoder = FCLayers(
            n_in=1 + n_values,
            n_out=n_units,
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
        covariates = pad(z[..., self.n_latent :], (1, 0), value=1.0)
        effects = self.px_decoder(covariates, *categories)
        return torch.cat([self.amplitudes(z[..., : self.n_latent]), effects], dim=-1)

    @torch.no_grad()
    def start_at(self, output: nn.Linear, programs: Tensor) -> None:
        """Start the programs of high values at ``programs``, ``(n_latent, n_features)``, in log rates.

        A program is the change of the log rate where z changes by 1. Programs of low values start at 0.
        """
        n_programs = 2 * self.n_latent
        output.weight[:, :n_programs:2] = programs.t().to(output.weight) / SLOPE
        output.weight[:, 1:n_programs:2] = 0.0
