"""What Numba has compiled: imported in one place, as it may not be installed."""

from __future__ import annotations

from betavi.kernels.loops import nb_rows, poisson_rows, zinb_rows
from betavi.kernels.products import by_gene, counts_times, rows_of

__all__ = [
    "by_gene",
    "counts_times",
    "nb_rows",
    "poisson_rows",
    "rows_of",
    "zinb_rows",
]
