"""Library sizes: inferred by an encoder, or predicted from z."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.distributions import Normal

from betavi.nn.networks import Encoder

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

    from betavi.nn.networks import Architecture

SMALLEST_SPREAD = 0.01
"""Smallest standard deviation of log sizes in a batch, which may have a single cell."""

LOG_SCALE_RANGE = (-4.0, 1.0)
"""Range of the log spread given z, relative to the spread of the batch."""

N_HIDDEN = 32


class TypicalLibrary(nn.Module):
    """Distribution of log library sizes given z and batch, for cells that lack a modality.

    Library sizes differ between cell types, so the dependence on z is learned. ``log_sizes`` and
    ``spreads`` are median and standard deviation of log sizes by batch, ``(n_batch,)``. They are
    NaN for a batch without the modality. ``home`` is the code of the batch that is used in place of
    such a batch.
    """

    log_sizes: Tensor
    spreads: Tensor
    home: Tensor

    def __init__(
        self, log_sizes: np.ndarray, spreads: np.ndarray, home: int, n_latent: int
    ) -> None:
        super().__init__()
        for name in ("log_sizes", "spreads"):
            self.register_buffer(name, torch.empty(len(log_sizes)))
        self.register_buffer("home", torch.tensor(home))
        self.start_at(log_sizes, spreads, home)
        last = nn.Linear(N_HIDDEN, 2)
        # before training, sizes depend on the batch only
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.of_z = nn.Sequential(nn.Linear(n_latent, N_HIDDEN), nn.ReLU(), last)

    def start_at(self, log_sizes: np.ndarray, spreads: np.ndarray, home: int) -> None:
        """Set the sizes of the training cells."""
        self.log_sizes.copy_(torch.as_tensor(log_sizes))
        self.spreads.copy_(torch.as_tensor(spreads))
        self.home.fill_(home)

    def measured(self, batch: Tensor) -> Tensor:
        """Return batch codes, ``(n_cells, 1)``, with batches without the modality replaced."""
        return torch.where(self.log_sizes[batch].isnan(), self.home, batch)

    def given(self, z: Tensor, batch: Tensor) -> Normal:
        """Return the distribution of log sizes at z, ``(..., n_cells, n_latent)``.

        ``batch`` must have only batches with the modality, see :meth:`measured`.
        """
        shift, log_scale = self.of_z(z).chunk(2, dim=-1)
        spread = self.spreads[batch].clamp_min(SMALLEST_SPREAD)
        scale = spread * log_scale.clamp(*LOG_SCALE_RANGE).exp()
        return Normal(self.log_sizes[batch] + spread * shift, scale, validate_args=False)

    @property
    def usual(self) -> Tensor:
        """Median over batches of the median log size."""
        return self.log_sizes.nanmedian()


class LatentLibrary(nn.Module):
    """Log library size inferred for each cell, with a normal prior for each batch.

    ``log_means`` and ``log_vars`` are mean and variance of the log library size of each batch,
    ``(1, n_batch)``. See :class:`~betavi.nn.networks.Encoder` for the other arguments.

    Reference: Lopez et al. (2018), Deep generative modeling for single-cell transcriptomics.
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
        for name in ("log_means", "log_vars"):
            self.register_buffer(name, torch.empty(log_means.shape))
        self.start_at(log_means, log_vars)

    def start_at(self, log_means: np.ndarray, log_vars: np.ndarray) -> None:
        """Set the prior, and the encoder's initial mean."""
        self.log_means.copy_(torch.as_tensor(log_means))
        self.log_vars.copy_(torch.as_tensor(log_vars))
        # training from 0 would take thousands of steps at a learning rate of 0.001
        nn.init.constant_(self.encoder.mean.bias, float(self.log_means.mean()))

    def forward(self, x: Tensor, *categories: Tensor) -> Normal:
        """Return the posterior of the log library size, ``(n_cells, 1)``."""
        return self.encoder(x, *categories)

    def prior(self, batch: Tensor) -> Normal:
        """Return the prior of the log library size for codes of shape ``(n_cells, 1)``."""
        code = batch.squeeze(-1)
        mean, variance = self.log_means[:, code].t(), self.log_vars[:, code].t()
        return Normal(mean, variance.sqrt(), validate_args=False)
