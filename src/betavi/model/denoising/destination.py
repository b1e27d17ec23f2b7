"""Destinations of denoised values: layers of an object, or a file, that hold nothing irreplaceable."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anndata
import h5py
import numpy as np
import pandas as pd
from anndata.abc import CSCDataset, CSRDataset
from anndata.io import sparse_dataset
from scipy import sparse

from betavi._blocks import DENSE_CELLS
from betavi.data import MOVED_COUNTS, Rows, counts_layer, counts_of
from betavi.model.io.writer import matrix_key, merged, named_layers
from betavi.model.setup.check_counts import holds_whole_numbers
from betavi.model.setup.selection import features_named

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from anndata import AnnData

    from betavi.model.denoising.estimate import DenoiseOptions
    from betavi.model.denoising.storage_format import StorageFormat
    from betavi.model.io.writer import Writer

READ_FROM_FILES = (h5py.Dataset, CSRDataset, CSCDataset)
COUNTS_LAYER = "counts"
"""Layer that counts are moved to when they are replaced in ``X``."""


@dataclass
class Destination:
    """Where the values of a modality go, and in which form."""

    name: str
    adata: AnnData
    prefix: str
    """Its group in a file; empty for an AnnData."""
    counts_layer: str | None
    """The layer of its counts; None for ``X``."""
    layer: str | None
    """The layer to write; None for ``X``."""
    std_layer: str | None
    """The layer for standard deviations, if they are wanted."""
    stored: StorageFormat
    genes: Sequence[str] | None
    """Names of the features, if they are not all of them."""
    n_done: int = 0
    found: dict[str | None, Any] = field(default_factory=dict)
    """Values in memory, by layer: arrays, or parts of sparse matrices."""

    @cached_property
    def features(self) -> np.ndarray | None:
        """Positions of the features, if they are not all of them."""
        called = f"mdata[{self.name!r}]" if self.prefix else "adata"
        names = self.adata.var_names
        return None if self.genes is None else features_named(names, self.genes, called)

    def check(self, out: str | Path | None) -> None:
        """Refuse with a ValueError to write where something would be lost; ``out`` is another file."""
        # a name that does not exist is refused here
        _ = self.features
        if self.layer is not None and self.layer == self.std_layer:
            raise ValueError(f"layer_added and std_layer_added are both {self.layer!r}.")
        for layer in (self.layer, self.std_layer):
            if layer is not None and (not layer or "/" in layer):
                raise ValueError(f"A layer {layer!r} cannot be written: a name, with no slashes.")
        if self.layer is None and self.std_layer == COUNTS_LAYER and (out or self._moves_x):
            raise ValueError(f"layers[{COUNTS_LAYER!r}] is where X is kept: name another for std.")
        if out is not None:
            self._check_is_other_file(Path(out).expanduser())
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
        if self.prefix or self.adata.file["obs"].file.mode == "r":
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

    def _check_is_other_file(self, out: Path) -> None:
        own = self.adata.filename if self.adata.isbacked else None
        if own is not None and out.exists() and out.samefile(own):
            raise ValueError(f"{out} is the file that the object is read from. Leave out= out.")

    def key(self, layer: str | None) -> str:
        """Return where a layer is in a file."""
        return matrix_key(self.prefix, layer)

    def template(self) -> AnnData:
        """Return what a file says of the cells and the features, without a matrix."""
        features, var = self.features, self.adata.var
        var = var.copy() if features is None else var.iloc[features].copy()
        return anndata.AnnData(obs=columns_of_user(self.adata.obs), var=var, uns={"betavi": {}})

    def record(self, options: DenoiseOptions) -> dict[str, Any]:
        """Return what ``uns`` says about the values: what they are, and how much was dropped."""
        batches = options.transform_batch
        names = [batches] if isinstance(batches, str) else batches
        said = {
            "estimate": options.estimate,
            "library_size": options.library_size,
            "batches": "own" if names is None else list(map(str, names)),
            "n_samples": options.n_samples,
            "beta": options.beta,
        }
        if self.stored.drop_below is not None:
            share = self.stored.dropped_share
            said |= {"drop_below": self.stored.drop_below, "dropped_share": share}
        return {"denoised": {self.layer or "X": said}}

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
        blocks = np.array_split(cells, max(1, len(cells) // DENSE_CELLS))
        return all(
            np.array_equal(x.dense(some, np.float64), layer.dense(some, np.float64))
            for some in blocks
        )

    def add(self, mean: np.ndarray, std: np.ndarray, writer: Writer | None) -> None:
        """Take the values of the next cells, into memory or into a file."""
        mean, std = self.stored.of(mean, std)
        values = {self.layer: mean} | ({} if self.std_layer is None else {self.std_layer: std})
        rows = slice(self.n_done, self.n_done + mean.shape[0])
        self.n_done = rows.stop
        for layer, some in values.items():
            if writer is not None:
                writer.append(self.key(layer), some)
            elif sparse.issparse(some):
                self.found.setdefault(layer, []).append(some)
            else:
                if layer not in self.found:
                    self.found[layer] = np.empty((self.adata.n_obs, some.shape[1]), some.dtype)
                self.found[layer][rows] = some
        if writer is not None and self.layer is None:
            writer.append(self.key(COUNTS_LAYER), self._csr_counts(rows))

    @cached_property
    def _counts(self) -> Rows:
        return Rows(counts_of(self.adata, self.counts_layer))

    def _csr_counts(self, cells: slice) -> sparse.csr_matrix:
        rows = self._counts[np.arange(cells.start, cells.stop)]
        # scipy has no sparse matrices in half precision
        rows = sparse.csr_matrix(rows.astype(np.float32) if rows.dtype == np.float16 else rows)
        return rows if self.features is None else rows[:, self.features]

    def put(self, record: dict[str, Any]) -> None:
        """Write values into the object, and say there what they are and where its counts are."""
        values = {
            layer: sparse.vstack(found, format="csr") if isinstance(found, list) else found
            for layer, found in self.found.items()
        }
        if self.genes is not None:
            record = {"denoised": {f"{self.layer} in obsm": record["denoised"][self.layer]}}
        elif self.layer is None and self._moves_x:
            self.adata.layers[COUNTS_LAYER] = self.adata.X
            # every model that reads X, also one that is loaded later, finds them there
            record = record | {MOVED_COUNTS: COUNTS_LAYER}
        for layer, some in values.items():
            if self.genes is not None:
                dense = some.toarray() if sparse.issparse(some) else some
                frame = pd.DataFrame(dense, self.adata.obs_names, list(self.genes))
                self.adata.obsm[layer] = frame
            elif layer is None:
                self.adata.X = some
            else:
                self.adata.layers[layer] = some
        self._say(record)

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
            data = self.adata.file[self.key(layer)]
            layers[layer] = sparse_dataset(data) if isinstance(data, h5py.Group) else data
        self._say(record)

    def _say(self, said: dict[str, Any]) -> None:
        self.adata.uns["betavi"] = merged(self.adata.uns.get("betavi", {}), said)


def refuse_view_of_file(adata: AnnData | None) -> None:
    """Refuse some cells of a file: they can neither be written to it nor be an object in memory."""
    if adata is not None and adata.is_view and adata.isbacked:
        raise ValueError(
            "The object is a view of a file. Read the cells into memory, adata[...].to_memory(), or "
            "denoise the whole file with out='denoised.zarr'."
        )


def columns_of_user(obs: pd.DataFrame) -> pd.DataFrame:
    """Return the columns that are not scvi-tools' own."""
    return obs.loc[:, [name for name in obs if not str(name).startswith("_scvi")]].copy()


@contextmanager
def layers_as_before(parts: Sequence[AnnData]) -> Iterator[None]:
    """Give objects their X, layers, obsm and uns back if what happens inside fails."""
    before = [(part, named_layers(part), dict(part.obsm), dict(part.uns)) for part in parts]
    matrices = [None if part.isbacked else part.X for part in parts]
    try:
        yield
    except BaseException:
        for (part, *mappings), x in zip(before, matrices, strict=True):
            for mapping, old in zip((part.layers, part.obsm, part.uns), mappings, strict=True):
                for name in [name for name in mapping if name is not None and name not in old]:
                    del mapping[name]
                mapping.update(old)
            if x is not None:
                part.X = x
        raise
