"""Log-probabilities of counts and their gradients, and products of sparse counts.

:mod:`~betavi.kernels.plain` runs wherever PyTorch does. Where Numba is installed, training on a CPU
uses the loops of :mod:`~betavi.kernels.compiled`, with the same values and gradients.
"""

from __future__ import annotations

from betavi.kernels.layers import head_nats
from betavi.kernels.plain import nb_log_prob, poisson_log_prob, zinb_log_prob
from betavi.kernels.sparse import compiled, dense, observed_log_library, totals

__all__ = [
    "compiled",
    "dense",
    "head_nats",
    "nb_log_prob",
    "observed_log_library",
    "poisson_log_prob",
    "totals",
    "zinb_log_prob",
]
