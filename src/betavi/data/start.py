"""Start values of a modality's decoder, from moments of its features."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor

UNEXPLAINED = 0.4
"""Share of a feature's variance around its mean profile that a latent variable will not explain.

It only sets where training starts. ``python -m benchmarks.start`` compares that with other starts.
"""

TARGET_SUM = 1e4
"""Total per cell of counts before their logarithm is taken, as is usual with scanpy."""


class Start(NamedTuple):
    """Moments of each feature over cells, ``(n_features,)``, around a mean profile.

    Parameters
    ----------
    profile
        Mean per unit of a cell's size; times the size, the expectation of a cell.
    mean, mean_square
        Averages of that expectation and of its square.
    variance
        Average squared deviation from it.
    log_mean, log_variance
        Mean and variance of log(1 + counts per 10,000) or, with size factors, of log(1 + counts per
        unit of size).

    Examples
    --------
    >>> import torch
    >>> from betavi.likelihoods import LIKELIHOODS, DispersionSizes, Start
    >>> start = Start(torch.tensor([0.25, 0.75]), *torch.ones(5, 2))
    >>> likelihood = LIKELIHOODS["poisson"](8, 2, "softmax", "gene", DispersionSizes(1, 1))
    >>> likelihood.start_at(start)
    >>> likelihood.unscaled.bias.exp().round(decimals=3).tolist()
    [0.25, 0.75]
    """

    profile: Tensor
    mean: Tensor
    mean_square: Tensor
    variance: Tensor
    log_mean: Tensor
    log_variance: Tensor

    @staticmethod
    def unexplained(variance: Tensor) -> Tensor:
        """Return the part of a variance that a latent variable will not explain."""
        return UNEXPLAINED * variance
