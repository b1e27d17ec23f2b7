"""The size of a cell: observed, inferred, or given."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.distributions import Normal

from betavi.kernels import totals
from betavi.nn.networks import Encoder

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

    from betavi.nn.networks import Architecture

SMALLEST_LIBRARY = 1e-8
"""A cell without counts has this library size: it predicts zeros and teaches nothing."""

SMALLEST_SPREAD = 0.01
"""Of log sizes in a batch, which may be of a single cell."""

LOG_SCALE_RANGE = (-4.0, 1.0)
"""Of the log spread given z, relative to that in the batch."""

N_HIDDEN = 32


def observed_log_library(x: Tensor) -> Tensor:
    """Return the log of each cell's total, ``(n_cells, 1)``, of counts ``(n_cells, n_features)``.

    Parameters
    ----------
    x
        Counts, dense or CSR.

    Returns
    -------
    Logs; of a cell without counts, that of 1e-8.

    Examples
    --------
    >>> import torch
    >>> from betavi.nn import observed_log_library
    >>> observed_log_library(torch.tensor([[1.0, 2.0], [0.0, 4.0]])).exp().round().tolist()
    [[3.0], [4.0]]
    """
    return totals(x).clamp_min(SMALLEST_LIBRARY).log()


class TypicalLibrary(nn.Module):
    """Which batches an assay was measured in, and the log library sizes of the cells there.

    Types of cells differ in size, so that z says something of it: how much is learnt, and a size
    that was not measured is drawn given z.

    Parameters
    ----------
    log_sizes, spreads
        Median and standard deviation by batch, ``(n_batch,)``; NaN of a batch in which no cell has
        the assay.
    home
        The batch that stands in for such a batch, of which a decoder has learned nothing.
    n_latent
        Number of latent dimensions.

    Examples
    --------
    >>> import numpy as np
    >>> import torch
    >>> from betavi.nn import TypicalLibrary
    >>> log_sizes, spreads = np.array([np.log(100.0), np.nan]), np.array([0.3, np.nan])
    >>> library = TypicalLibrary(log_sizes, spreads, home=0, n_latent=2)
    >>> batch = library.measured(torch.tensor([[0], [1]]))
    >>> library.given(torch.zeros(2, 2), batch).mean.exp().round().tolist()
    [[100.0], [100.0]]
    """

    log_sizes: Tensor
    spreads: Tensor
    home: Tensor

    def __init__(
        self, log_sizes: np.ndarray, spreads: np.ndarray, home: int, n_latent: int
    ) -> None:
        super().__init__()
        self.register_buffer("log_sizes", torch.as_tensor(log_sizes, dtype=torch.float32))
        self.register_buffer("spreads", torch.as_tensor(spreads, dtype=torch.float32))
        self.register_buffer("home", torch.tensor(home))
        last = nn.Linear(N_HIDDEN, 2)
        # untrained, a size is one of its batch
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.of_z = nn.Sequential(nn.Linear(n_latent, N_HIDDEN), nn.ReLU(), last)

    def measured(self, batch: Tensor) -> Tensor:
        """Return codes of batches in which the assay was measured, of codes ``(n_cells, 1)``."""
        return torch.where(self.log_sizes[batch].isnan(), self.home, batch)

    def given(self, z: Tensor, batch: Tensor) -> Normal:
        """Return log sizes of cells at z, ``(..., n_cells, n_latent)``, of batches with the assay."""
        shift, log_scale = self.of_z(z).chunk(2, dim=-1)
        spread = self.spreads[batch].clamp_min(SMALLEST_SPREAD)
        scale = spread * log_scale.clamp(*LOG_SCALE_RANGE).exp()
        return Normal(self.log_sizes[batch] + spread * shift, scale, validate_args=False)

    @property
    def usual(self) -> Tensor:
        """Median over the batches."""
        return self.log_sizes.nanmedian()


class LatentLibrary(nn.Module):
    """A log library size inferred per cell, with a normal prior per batch.

    Parameters
    ----------
    n_input, n_categories, architecture
        See :class:`~betavi.nn.networks.Encoder`.
    log_means, log_vars
        Mean and variance of the log library size of each batch, ``(1, n_batch)``.

    Raises
    ------
    ValueError
        If a word of the architecture is unknown.

    References
    ----------
    Lopez et al. (2018), Deep generative modeling for single-cell transcriptomics.

    Examples
    --------
    >>> import numpy as np
    >>> import torch
    >>> from betavi.nn import Architecture, LatentLibrary
    >>> library = LatentLibrary(20, [], Architecture(), np.full((1, 1), 7.0), np.ones((1, 1)))
    >>> codes = torch.zeros(3, 1, dtype=torch.long)
    >>> library(torch.ones(3, 20)).mean.shape, library.prior(codes).mean.tolist()
    (torch.Size([3, 1]), [[7.0], [7.0], [7.0]])
    """

    log_means: Tensor
    log_vars: Tensor

    def __init__(
        self,
        n_input: int,
        n_categories: Sequence[int],
        architecture: Architecture,
        log_means: np.ndarray,
        log_vars: np.ndarray,
    ) -> None:
        super().__init__()
        self.encoder = Encoder(n_input, 1, n_categories, architecture, n_layers=1)
        self.register_buffer("log_means", torch.as_tensor(log_means, dtype=torch.float32))
        self.register_buffer("log_vars", torch.as_tensor(log_vars, dtype=torch.float32))
        # at a learning rate of 0.001 it would take thousands of steps to climb there
        nn.init.constant_(self.encoder.mean.bias, float(self.log_means.mean()))

    def forward(self, x: Tensor, *categories: Tensor) -> Normal:
        """Return the posterior of the log library size, ``(n_cells, 1)``."""
        posterior: Normal = self.encoder(x, *categories)
        return posterior

    def prior(self, batch: Tensor) -> Normal:
        """Return the prior of the log library size for codes of shape ``(n_cells, 1)``."""
        code = batch.squeeze(-1)
        mean, variance = self.log_means[:, code].t(), self.log_vars[:, code].t()
        return Normal(mean, variance.sqrt(), validate_args=False)
