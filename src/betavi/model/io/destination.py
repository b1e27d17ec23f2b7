"""Where denoised values go, and where the counts are kept that they replace."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import h5py
import numpy as np
import pandas as pd
from anndata.abc import CSCDataset, CSRDataset
from anndata.io import sparse_dataset
from scipy import sparse

from betavi.data import MOVED_COUNTS, Rows, counts_layer
from betavi.model.io.files import merged
from betavi.model.setup.check_counts import holds_whole_numbers

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from anndata import AnnData

    from betavi.model.io.storage_format import Moments

CELLS_AT_ONCE = 1024
READ_FROM_FILES = (h5py.Dataset, CSRDataset, CSCDataset)
COUNTS_LAYER = "counts"
"""Where counts are kept that are replaced in ``X``."""


def named_layers(adata: AnnData) -> dict[str, Any]:
    """Return the layers by name; newer versions of anndata count X among them, without one."""
    return {name: values for name, values in adata.layers.items() if name is not None}


class Place(NamedTuple):
    """Where values are to go; ``layer`` is None for ``X``, ``genes`` names a part of the features."""

    adata: AnnData
    counts_layer: str | None
    layer: str | None
    std_layer: str | None
    genes: Sequence[str] | None = None
    modality: str | None = None

    def check(self, to_file: bool) -> None:
        """Refuse to write where something is that would be lost.

        Parameters
        ----------
        to_file
            Whether values go to another file, and not into the object.

        Raises
        ------
        ValueError
            If it would be.
        """
        if self.layer is not None and self.layer == self.std_layer:
            raise ValueError(f"layer_added and std_layer_added are both {self.layer!r}.")
        for layer in (self.layer, self.std_layer):
            if layer is not None and (not layer or "/" in layer):
                raise ValueError(f"A layer {layer!r} cannot be written: a name, with no slashes.")
        if self.layer is None and self.std_layer == COUNTS_LAYER and (to_file or self._moves_x):
            raise ValueError(f"layers[{COUNTS_LAYER!r}] is where X is kept: name another for std.")
        if to_file:
            return
        self._check_layers()
        if self.layer is not None:
            return
        if self.genes is not None:
            raise ValueError("X cannot be replaced by some of its genes: name a layer_added.")
        if self._moves_x and COUNTS_LAYER in self.adata.layers:
            raise ValueError(
                f"X cannot be kept in layers[{COUNTS_LAYER!r}], which exists already. Rename it, or, if "
                f"it holds the counts, register it: layer={COUNTS_LAYER!r}."
            )

    def _check_layers(self) -> None:
        if self.genes is not None:
            return
        for layer in (self.layer, self.std_layer):
            if layer is not None and layer == self.counts_layer:
                raise ValueError(
                    f"layers[{layer!r}] holds the counts that the model reads. Name another."
                )
            self._check_is_ours(layer)
        if not self.adata.isbacked:
            return
        if self.layer is None:
            raise ValueError(
                "The object is backed by a file, whose X is not replaced. Name a layer_added, write "
                "another file, out='denoised.zarr', or read it into memory first: adata.to_memory()."
            )
        if self.modality is not None or self.adata.file["obs"].file.mode == "r":
            raise ValueError(
                "The file that backs the object is not written to. Write another, "
                "out='denoised.zarr', or read an AnnData with backed='r+'."
            )

    def _check_is_ours(self, layer: str | None) -> None:
        """Refuse to write over what may be the only counts: whole numbers that nothing denoised."""
        written = self.adata.uns.get("betavi", {}).get("denoised", {})
        if layer is None or layer in written or layer not in self.adata.layers:
            return
        if holds_whole_numbers(self.adata.layers[layer]):
            raise ValueError(
                f"layers[{layer!r}] holds whole numbers, such as counts, that denoise() would write over. "
                f"Name another, or delete it first: del adata.layers[{layer!r}]."
            )

    def key(self, part: str, layer: str | None) -> str:
        """Return where a layer is in a file."""
        return f"{part}X" if layer is None else f"{part}layers/{layer}"

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

    def put(self, values: Moments, record: dict[str, Any]) -> None:
        """Write values; say in the object what they are, and where its counts are."""
        said = record
        if self.genes is not None:
            assert self.layer is not None
            said = {"denoised": {f"{self.layer} in obsm": record["denoised"][self.layer]}}
            self._put_frame(self.layer, values.mean)
            if self.std_layer is not None:
                self._put_frame(self.std_layer, values.std)
        else:
            if self.std_layer is not None:
                self.adata.layers[self.std_layer] = values.std
            if self.layer is not None:
                self.adata.layers[self.layer] = values.mean
            elif self._moves_x:
                self.adata.layers[COUNTS_LAYER] = self.adata.X
                # every model that reads X, also one that is loaded later, finds them there
                said = said | {MOVED_COUNTS: COUNTS_LAYER}
            if self.layer is None:
                self.adata.X = values.mean
        self._say(said)

    def reopen(self, record: dict[str, Any]) -> None:
        """Open the file that backs the object, as it was written anew, and read layers from it."""
        layers, named = self.adata.layers, named_layers(self.adata)
        read = {name for name, values in named.items() if isinstance(values, READ_FROM_FILES)}
        written = {name for name in (self.layer, self.std_layer) if name is not None}
        for layer in read:
            del layers[layer]
        self.adata.file.close()
        self.adata.file.open()
        for layer in read | written:
            data = self.adata.file[self.key("", layer)]
            layers[layer] = sparse_dataset(data) if isinstance(data, h5py.Group) else data
        self._say(record)

    def _say(self, said: dict[str, Any]) -> None:
        self.adata.uns["betavi"] = merged(self.adata.uns.get("betavi", {}), said)

    def _put_frame(self, key: str, values: Any) -> None:
        assert self.genes is not None
        values = values.toarray() if sparse.issparse(values) else values
        frame = pd.DataFrame(values, index=self.adata.obs_names, columns=list(self.genes))
        self.adata.obsm[key] = frame


def refuse_view_of_file(adata: AnnData | None) -> None:
    """Refuse some cells of a file: neither can they be written to it nor be an object in memory.

    Raises
    ------
    ValueError
        If it is such a view.
    """
    if adata is not None and adata.is_view and adata.isbacked:
        raise ValueError(
            "The object is a view of a file. Read the cells into memory, adata[...].to_memory(), or "
            "denoise the whole file with out='denoised.zarr'."
        )


@contextmanager
def layers_as_before(parts: Sequence[AnnData]) -> Iterator[None]:
    """Give objects their X, layers, obsm and uns back if what happens inside fails."""
    before = [
        (
            part,
            None if part.isbacked else part.X,
            named_layers(part),
            dict(part.obsm),
            dict(part.uns),
        )
        for part in parts
    ]
    try:
        yield
    except BaseException:
        for part, x, *mappings in before:
            for mapping, old in zip((part.layers, part.obsm, part.uns), mappings, strict=True):
                for name in [name for name in mapping if name is not None and name not in old]:
                    del mapping[name]
                mapping.update(old)
            if x is not None:
                part.X = x
        raise
