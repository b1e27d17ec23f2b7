"""Precision of stored values, and omission of small values."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from numbers import Real
from typing import Any

import numpy as np
from scipy import sparse

from betavi._tables import lookup

DTYPES: dict[str, type[np.floating[Any]]] = {"float32": np.float32, "float16": np.float16}
"""NumPy types by the value of ``dtype``."""


@dataclass
class StorageFormat:
    """Precision of stored values, and the sum of the values that are dropped."""

    dtype: str = "float32"
    """A key of :data:`DTYPES`."""
    drop_below: float | None = None
    """Smallest value to store, in a sparse matrix. None stores all values in an array."""
    total: float = field(default=0.0, init=False)
    dropped: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        """Validate the arguments."""
        if not isinstance(self.dtype, str):
            # the table refuses other values
            with suppress(TypeError, ValueError):
                self.dtype = np.dtype(self.dtype).name
        lookup(DTYPES, self.dtype, "dtype")
        if self.drop_below is None:
            return
        if not isinstance(self.drop_below, Real) or not self.drop_below > 0:
            raise ValueError(f"`drop_below` must be positive or None, not {self.drop_below!r}.")
        if self.dtype == "float16":
            raise ValueError(
                "`drop_below` needs dtype='float32', because SciPy has no sparse float16 matrices."
            )

    @property
    def dropped_share(self) -> float:
        """Dropped share of the sum of all values so far."""
        return self.dropped / self.total if self.total > 0 else 0.0

    def converted(self, mean: np.ndarray, std: np.ndarray) -> tuple[Any, Any]:
        """Return means and deviations as stored. Raises a ValueError if a value is too large."""
        dtype = DTYPES[self.dtype]
        largest, limit = max(mean.max(initial=0.0), std.max(initial=0.0)), np.finfo(dtype).max
        if largest > limit:
            raise ValueError(
                f"The value {largest:g} is too large for {self.dtype}, whose largest value is "
                f"{limit:g}. Use dtype='float32', or a smaller `library_size`."
            )
        if self.drop_below is None:
            return mean.astype(dtype, copy=False), std.astype(dtype, copy=False)
        is_stored = mean >= self.drop_below
        total = float(mean.sum(dtype=np.float64))
        self.total += total
        self.dropped += total - float(mean.sum(dtype=np.float64, where=is_stored))
        rows, columns = np.nonzero(is_stored)
        # deviations have the entries of the means, even if they are zero
        indptr = np.searchsorted(rows, np.arange(len(mean) + 1))
        stored = [values[is_stored].astype(dtype) for values in (mean, std)]
        means, stds = (sparse.csr_matrix((x, columns, indptr), shape=mean.shape) for x in stored)
        return means, stds
