"""Arithmetic on counts: log-probabilities and their gradients, plain and compiled.

:mod:`~betavi.kernels.plain` runs wherever PyTorch does. Where Numba is installed, training on a CPU
goes through the loops of :mod:`~betavi.kernels.compiled`, with the same values and gradients.
"""

from __future__ import annotations

from betavi.kernels.layers import CountsLinear, Heads, TransposedLinear, head_nats
from betavi.kernels.plain import nb_log_prob, poisson_log_prob, zinb_log_prob
from betavi.kernels.sparse import (
    compiled,
    compressed,
    dense,
    is_compressed,
    log1p,
    observed_log_library,
    rows_of,
    totals,
)

__all__ = [
    "CountsLinear",
    "Heads",
    "TransposedLinear",
    "compiled",
    "compressed",
    "dense",
    "head_nats",
    "is_compressed",
    "log1p",
    "nb_log_prob",
    "observed_log_library",
    "poisson_log_prob",
    "rows_of",
    "totals",
    "zinb_log_prob",
]
