"""The precision that denoised values are stored in, and which of them are too small to be stored."""

from __future__ import annotations

from dataclasses import dataclass, field
from numbers import Real
from typing import Any

import numpy as np
from scipy import sparse

from betavi._tables import lookup

DTYPES: dict[str, type[np.floating[Any]]] = {"float32": np.float32, "float16": np.float16}
"""Precisions, by the user's word."""


@dataclass
class StorageFormat:
    """How values are stored, and how much is dropped of them."""

    dtype: str = "float32"
    """A key of :data:`DTYPES`."""
    drop_below: float | None = None
    """Smallest value that is stored, in a sparse matrix; None stores all, in an array."""
    mass: float = field(default=0.0, init=False)
    dropped: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        """Refuse what cannot be stored."""
        if not isinstance(self.dtype, str):
            self.dtype = np.dtype(self.dtype).name
        lookup(DTYPES, self.dtype, "dtype")
        if self.drop_below is None:
            return
        if not isinstance(self.drop_below, Real) or not self.drop_below > 0:
            raise ValueError(f"drop_below is positive, not {self.drop_below!r}; None keeps all.")
        if self.dtype == "float16":
            raise ValueError(
                "SciPy has no sparse matrices in half precision: dtype='float32', or no drop_below."
            )

    @property
    def dropped_share(self) -> float:
        """Share of the sum of all values so far that was dropped."""
        return self.dropped / self.mass if self.mass > 0 else 0.0

    def of(self, mean: np.ndarray, std: np.ndarray) -> tuple[Any, Any]:
        """Return what is stored of means and deviations; refuse what the precision cannot hold."""
        dtype = DTYPES[self.dtype]
        largest = max(mean.max(initial=0.0), std.max(initial=0.0))
        if largest > np.finfo(dtype).max:
            raise ValueError(
                f"A value of {largest:g} is beyond {self.dtype}, which ends at "
                f"{np.finfo(dtype).max:g}. Use dtype='float32', or a smaller library_size."
            )
        if self.drop_below is None:
            return mean.astype(dtype, copy=False), std.astype(dtype, copy=False)
        stays = mean >= self.drop_below
        total = float(mean.sum(dtype=np.float64))
        self.mass += total
        self.dropped += total - float(mean.sum(dtype=np.float64, where=stays))
        rows, columns = np.nonzero(stays)
        # deviations are stored where means are, also where they are zero
        indptr = np.searchsorted(rows, np.arange(len(mean) + 1))
        kept = [values[stays].astype(dtype) for values in (mean, std)]
        means, stds = (sparse.csr_matrix((x, columns, indptr), shape=mean.shape) for x in kept)
        return means, stds
