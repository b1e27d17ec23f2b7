"""How denoised values are kept: their precision, and which of them are too small to be."""

from __future__ import annotations

from dataclasses import dataclass, field
from numbers import Real
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from scipy import sparse

from betavi._tables import lookup

if TYPE_CHECKING:
    from collections.abc import Iterable

DTYPES: dict[str, type[np.floating[Any]]] = {"float32": np.float32, "float16": np.float16}
"""Precisions, by the user's word."""

Matrix = Any
"""An array or, where small values are dropped, a CSR matrix."""


class Moments(NamedTuple):
    """Means and standard deviations of some cells, ``(n_cells, n_features)``."""

    mean: Matrix
    std: Matrix


@dataclass
class Kept:
    """What is kept of the values, and how much is not.

    Parameters
    ----------
    dtype
        A key of :data:`DTYPES`.
    drop_below
        Keep values from here on only, in a sparse matrix; all of them, in an array, if None.

    Raises
    ------
    ValueError
        If the precision is unknown, the threshold is not positive, or there are no sparse matrices
        of that precision.
    """

    dtype: str = "float32"
    drop_below: float | None = None
    mass: float = field(default=0.0, init=False)
    dropped: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        """Refuse what cannot be kept."""
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
    def is_sparse(self) -> bool:
        """Whether small values are dropped."""
        return self.drop_below is not None

    @property
    def dropped_share(self) -> float:
        """Share of the sum of all values that was dropped."""
        return self.dropped / self.mass if self.mass > 0 else 0.0

    def notes(self) -> dict[str, float]:
        """Return the sums of all values so far, and of those that were dropped."""
        return {"mass": self.mass, "dropped": self.dropped}

    def remember(self, notes: dict[str, float]) -> None:
        """Go on from :meth:`notes`."""
        self.mass, self.dropped = notes.get("mass", 0.0), notes.get("dropped", 0.0)

    def of(self, mean: np.ndarray, std: np.ndarray) -> Moments:
        """Return what is kept of the values of some cells.

        Raises
        ------
        ValueError
            If a value is too large for the precision.
        """
        dtype = DTYPES[self.dtype]
        largest = max(mean.max(initial=0.0), std.max(initial=0.0))
        if largest > np.finfo(dtype).max:
            raise ValueError(
                f"A value of {largest:g} is beyond {self.dtype}, which ends at "
                f"{np.finfo(dtype).max:g}. Use dtype='float32', or a smaller library_size."
            )
        if self.drop_below is None:
            return Moments(mean.astype(dtype, copy=False), std.astype(dtype, copy=False))
        stays = mean >= self.drop_below
        total = float(mean.sum(dtype=np.float64))
        self.mass += total
        self.dropped += total - float(mean.sum(dtype=np.float64, where=stays))
        rows, columns = np.nonzero(stays)
        # the deviations of what is kept, at the same places, also where they are zero
        indptr = np.searchsorted(rows, np.arange(len(mean) + 1))
        mean, std = (
            sparse.csr_matrix((values[stays].astype(dtype), columns, indptr), shape=mean.shape)
            for values in (mean, std)
        )
        return Moments(mean, std)


def gathered(
    parts: Iterable[Moments], shape: tuple[int, int], kept: Kept, with_std: bool
) -> Moments:
    """Put minibatches together; of arrays no second copy is made.

    Parameters
    ----------
    parts
        Of consecutive cells.
    shape
        Of all of them.
    kept
        How they are kept.
    with_std
        Whether standard deviations are wanted, None otherwise.
    """
    if kept.is_sparse:
        means, stds = [], []
        for part in parts:
            means.append(part.mean)
            stds.extend([part.std] if with_std else [])
        return Moments(
            *(sparse.vstack(some, format="csr") if some else None for some in (means, stds))
        )
    mean = np.empty(shape, dtype=DTYPES[kept.dtype])
    std = np.empty_like(mean) if with_std else None
    start = 0
    for part in parts:
        stop = start + len(part.mean)
        mean[start:stop] = part.mean
        if std is not None:
            std[start:stop] = part.std
        start = stop
    return Moments(mean, std)
