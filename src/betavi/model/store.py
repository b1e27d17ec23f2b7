"""Where denoised values go, and where the counts are kept that they replace."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from betavi._tables import close_matches
from betavi.model.check_counts import holds_whole_numbers
from betavi.train import MOVED_COUNTS, Rows, counts_layer

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from anndata import AnnData

CELLS_AT_ONCE = 1024
COUNTS_LAYER = "counts"
"""Where counts are kept that are replaced in ``X``."""


class Denoised(NamedTuple):
    """Means and standard deviations, ``(n_cells, n_features)``."""

    mean: np.ndarray
    std: np.ndarray | None

    @classmethod
    def gathered(
        cls,
        parts: Iterable[tuple[np.ndarray, np.ndarray]],
        shape: tuple[int, int],
        with_std: bool,
    ) -> Denoised:
        """Put minibatches together in single precision, of which no second copy is made."""
        mean = np.empty(shape, dtype=np.float32)
        std = np.empty(shape, dtype=np.float32) if with_std else None
        start = 0
        for some_means, some_stds in parts:
            stop = start + len(some_means)
            mean[start:stop] = some_means
            if std is not None:
                std[start:stop] = some_stds
            start = stop
        return cls(mean, std)


class Place(NamedTuple):
    """Where in an object values are to go; ``layer`` is None for ``X``, ``genes`` names a part."""

    adata: AnnData
    counts_layer: str | None
    layer: str | None
    std_layer: str | None
    genes: Sequence[str] | None = None

    def check(self) -> None:
        """Refuse to write where something is that would be lost.

        Raises
        ------
        ValueError
            If it would be.
        """
        for layer in (self.layer, self.std_layer):
            if layer is not None and layer == self.counts_layer and self.genes is None:
                raise ValueError(
                    f"layers[{layer!r}] holds the counts that the model reads. Name another."
                )
        if self.layer is not None:
            if self.layer == self.std_layer:
                raise ValueError(f"layer_added and std_layer_added are both {self.layer!r}.")
            return
        if self.genes is not None:
            raise ValueError("X cannot be replaced by some of its genes: name a layer_added.")
        if self.adata.isbacked:
            raise ValueError(
                "The object is backed by a file, whose X is not replaced. Name a layer_added, or read "
                "it into memory first: adata.to_memory()."
            )
        if not self._moves_x:
            return
        if self.std_layer == COUNTS_LAYER:
            raise ValueError(f"layers[{COUNTS_LAYER!r}] is where X is kept: name another for std.")
        if COUNTS_LAYER in self.adata.layers:
            raise ValueError(
                f"X cannot be kept in layers[{COUNTS_LAYER!r}], which exists already. Rename it, or, if "
                f"it holds the counts, register it: layer={COUNTS_LAYER!r}."
            )

    @property
    def _moves_x(self) -> bool:
        """Whether X holds counts that are nowhere else."""
        if self.counts_layer is None:
            return True
        if counts_layer(self.adata, None) is not None or self.adata.X is None:
            return False
        return holds_whole_numbers(self.adata.X) and not self._x_is_layer()

    def _x_is_layer(self) -> bool:
        x, layer = Rows(self.adata.X), Rows(self.adata.layers[self.counts_layer])
        cells = np.arange(self.adata.n_obs)
        blocks = np.array_split(cells, max(1, len(cells) // CELLS_AT_ONCE))
        return all(
            np.array_equal(x.dense(some, np.float64), layer.dense(some, np.float64))
            for some in blocks
        )

    def put(self, values: Denoised) -> None:
        """Write values; say in the object where its counts are, if that is no longer ``X``."""
        if self.genes is not None:
            assert self.layer is not None
            self._put_frame(self.layer, values.mean)
            if self.std_layer is not None and values.std is not None:
                self._put_frame(self.std_layer, values.std)
            return
        if self.std_layer is not None:
            self.adata.layers[self.std_layer] = values.std
        if self.layer is not None:
            self.adata.layers[self.layer] = values.mean
            return
        if self._moves_x:
            self.adata.layers[COUNTS_LAYER] = self.adata.X
            # every model that reads X, also one that is loaded later, finds them there
            said = {MOVED_COUNTS: COUNTS_LAYER}
            self.adata.uns["betavi"] = self.adata.uns.get("betavi", {}) | said
        self.adata.X = values.mean

    def _put_frame(self, key: str, values: np.ndarray) -> None:
        frame = pd.DataFrame(values, index=self.adata.obs_names, columns=list(self.genes or []))
        self.adata.obsm[key] = frame


def positions_of(names: pd.Index, wanted: Sequence[str] | None, called: str) -> np.ndarray:
    """Return the positions of some features, of all if None.

    Parameters
    ----------
    names
        Of all features.
    wanted
        Of some.
    called
        What holds them.

    Raises
    ------
    KeyError
        If one does not exist.
    TypeError
        If a single name was given.
    ValueError
        If several features have a name.
    """
    if wanted is None:
        return np.arange(len(names))
    if isinstance(wanted, str):
        raise TypeError(f"gene_list is a list of names: [{wanted!r}].")
    known = {name: position for position, name in enumerate(names)}
    repeated = set(names[names.duplicated()])
    for name in wanted:
        if name not in known:
            raise KeyError(f"{called} has no feature {name!r}. {close_matches(name, names)}")
        if name in repeated:
            raise ValueError(f"{called} has several features {name!r}: var_names_make_unique().")
    return np.array([known[name] for name in wanted], dtype=np.int64)
