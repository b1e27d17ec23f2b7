"""Destinations of denoised values: layers of an object, or a file. Counts are never overwritten."""

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

from betavi import _blocks
from betavi.data import MOVED_COUNTS, Rows, counts_layer, counts_of, files_of
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
"""Layer to which counts are moved when ``X`` is replaced."""


@dataclass
class Destination:
    """Layers, in an object or a file, for the denoised values of a modality.

    ``layer=None`` means ``X``. ``std_layer=None`` means that standard deviations are not written.
    """

    name: str
    adata: AnnData
    prefix: str
    """Prefix of the modality's keys in a file. Empty for an AnnData."""
    counts_layer: str | None
    layer: str | None
    std_layer: str | None
    storage_format: StorageFormat
    genes: Sequence[str] | None
    """Names of the features to write. None writes all."""
    n_done: int = 0
    values: dict[str | None, Any] = field(default_factory=dict)
    """Values in memory, by layer: arrays, or lists of sparse matrices."""

    @cached_property
    def features(self) -> np.ndarray | None:
        """Positions of the features to write. None writes all."""
        holder = f"mdata[{self.name!r}]" if self.prefix else "adata"
        names = self.adata.var_names
        return None if self.genes is None else features_named(names, self.genes, holder)

    def check(self, out: str | Path | None) -> None:
        """Raise a ValueError if data would be lost, in the object or in the file ``out``."""
        # refuses unknown features
        _ = self.features
        if self.layer is not None and self.layer == self.std_layer:
            raise ValueError(
                f"`layer_added` and `std_layer_added` are both {self.layer!r}. Use different names."
            )
        for layer in (self.layer, self.std_layer):
            if layer is not None and (not layer or "/" in layer):
                raise ValueError(f"A layer cannot be named {layer!r}. Use a name without slashes.")
        if self.layer is None and self.std_layer == COUNTS_LAYER and (out or self._moves_x):
            raise ValueError(
                f"`std_layer_added` must not be {COUNTS_LAYER!r}: counts are moved there."
            )
        files = files_of(self.adata)
        if out is not None:
            path, own = Path(out).expanduser(), self.adata.filename if self.adata.isbacked else None
            if own is not None and path.exists() and path.samefile(own):
                raise ValueError(
                    f"`out` is the file that backs the object: {path}. Leave `out` out."
                )
            if path.exists() and any(path.samefile(file) for file in files):
                raise ValueError(
                    f"`out` is the file that holds the counts: {path}. Choose another."
                )
            return
        if files and self.genes is None:
            raise ValueError(
                f"The counts stay in {files[0]}, so denoised values are not kept in memory. Write them to "
                "another file: out='denoised.zarr'. Or, denoise some genes: gene_list=[...]"
            )
        self._check_layers()
        if self.layer is not None:
            return
        if self.genes is not None:
            raise ValueError(
                "`gene_list` needs `layer_added`, because it cannot replace X. Pass a name."
            )
        if self._moves_x and COUNTS_LAYER in self.adata.layers:
            raise ValueError(
                f"X cannot be moved to layers[{COUNTS_LAYER!r}], because this layer already "
                "exists. Rename the layer. Or, if it holds the counts, register it before "
                f"training: setup_anndata(adata, layer={COUNTS_LAYER!r})"
            )

    def _check_layers(self) -> None:
        if self.genes is not None:
            return
        for layer in (self.layer, self.std_layer):
            if layer is not None and layer == self.counts_layer:
                raise ValueError(
                    f"layers[{layer!r}] holds the counts that the model reads, and denoise() would "
                    "overwrite these counts. Choose another layer name."
                )
            self._check_replaceable(layer)
        if not self.adata.isbacked:
            return
        if self.layer is None:
            raise ValueError(
                "X cannot be replaced, because the object is backed by a file. Pass "
                "`layer_added`, or write another file with out='denoised.zarr'. Or, read the "
                "object into memory first: adata.to_memory()"
            )
        if self.prefix or self.adata.file["obs"].file.mode == "r":
            raise ValueError(
                "The file that backs the object cannot be written to. Write another file "
                "(out='denoised.zarr'), or read an AnnData with backed='r+'."
            )

    def _check_replaceable(self, layer: str | None) -> None:
        """Refuse to overwrite whole numbers that ``denoise`` did not write: they may be counts."""
        written = self.adata.uns.get("betavi", {}).get("denoised", {})
        if layer is None or layer in written or layer not in self.adata.layers:
            return
        if holds_whole_numbers(self.adata.layers[layer]):
            raise ValueError(
                f"layers[{layer!r}] holds whole numbers that denoise() did not write. They may be "
                "counts, so denoise() does not overwrite them. Choose another layer name. Or, "
                f"delete the layer first: del adata.layers[{layer!r}]"
            )

    def key(self, layer: str | None) -> str:
        """Return the key of a layer in a file."""
        return matrix_key(self.prefix, layer)

    def template(self) -> AnnData:
        """Return an object with ``obs`` and ``var``, but without a matrix."""
        features, var = self.features, self.adata.var
        var = var.copy() if features is None else var.iloc[features].copy()
        return anndata.AnnData(obs=columns_of_user(self.adata.obs), var=var, uns={"betavi": {}})

    def record(self, options: DenoiseOptions) -> dict[str, Any]:
        """Return the entry of ``uns`` about the values: options, and the dropped share."""
        batches = options.transform_batch
        names = [batches] if isinstance(batches, str) else batches
        entry = {
            "estimate": options.estimate,
            "library_size": options.library_size,
            "batches": "own" if names is None else list(map(str, names)),
            "n_samples": options.n_samples,
            "beta": options.beta,
        }
        if self.storage_format.drop_below is not None:
            entry["drop_below"] = self.storage_format.drop_below
            entry["dropped_share"] = self.storage_format.dropped_share
        return {"denoised": {self.layer or "X": entry}}

    @property
    def _moves_x(self) -> bool:
        """True if X holds counts that no layer has."""
        if self.counts_layer is None:
            return True
        if counts_layer(self.adata, None) is not None or self.adata.X is None:
            return False
        return holds_whole_numbers(self.adata.X) and not self._x_is_layer()

    def _x_is_layer(self) -> bool:
        x, layer = Rows(self.adata.X), Rows(self.adata.layers[self.counts_layer])
        cells = np.arange(self.adata.n_obs)
        blocks = np.array_split(cells, max(1, len(cells) // _blocks.DENSE_CELLS))
        return all(
            np.array_equal(x.dense(some, np.float64), layer.dense(some, np.float64))
            for some in blocks
        )

    def add(self, mean: np.ndarray, std: np.ndarray, writer: Writer | None) -> None:
        """Add the values of the next cells, in memory or to a file."""
        mean, std = self.storage_format.converted(mean, std)
        block = {self.layer: mean} | ({} if self.std_layer is None else {self.std_layer: std})
        rows = slice(self.n_done, self.n_done + mean.shape[0])
        self.n_done = rows.stop
        for layer, some in block.items():
            if writer is not None:
                writer.append(self.key(layer), some)
            elif sparse.issparse(some):
                self.values.setdefault(layer, []).append(some)
            else:
                if layer not in self.values:
                    self.values[layer] = np.empty((self.adata.n_obs, some.shape[1]), some.dtype)
                self.values[layer][rows] = some
        if writer is not None and self.layer is None:
            writer.append(self.key(COUNTS_LAYER), self._csr_counts(rows))

    @cached_property
    def _counts(self) -> Rows:
        return Rows(counts_of(self.adata, self.counts_layer))

    def _csr_counts(self, cells: slice) -> sparse.csr_matrix:
        rows = self._counts[np.arange(cells.start, cells.stop)]
        # SciPy has no sparse matrices in half precision
        rows = sparse.csr_matrix(rows.astype(np.float32) if rows.dtype == np.float16 else rows)
        return rows if self.features is None else rows[:, self.features]

    def put(self, record: dict[str, Any]) -> None:
        """Write the values into the object, and the record into its ``uns``."""
        if self.genes is not None:
            record = {"denoised": {f"{self.layer} in obsm": record["denoised"][self.layer]}}
        elif self.layer is None and self._moves_x:
            self.adata.layers[COUNTS_LAYER] = self.adata.X
            # every model that reads X, also one that is loaded later, finds the counts there
            record = record | {MOVED_COUNTS: COUNTS_LAYER}
        for layer, parts in self.values.items():
            values = sparse.vstack(parts, format="csr") if isinstance(parts, list) else parts
            if self.genes is not None:
                dense = values.toarray() if sparse.issparse(values) else values
                frame = pd.DataFrame(dense, self.adata.obs_names, list(self.genes))
                self.adata.obsm[layer] = frame
            elif layer is None:
                self.adata.X = values
            else:
                self.adata.layers[layer] = values
        self._add_to_uns(record)

    def reopen(self, record: dict[str, Any]) -> None:
        """Open the new file that backs the object, and read the layers from it."""
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
        self._add_to_uns(record)

    def _add_to_uns(self, record: dict[str, Any]) -> None:
        self.adata.uns["betavi"] = merged(self.adata.uns.get("betavi", {}), record)


def refuse_view_of_file(adata: AnnData | None) -> None:
    """Raise a ValueError for a view of a backed object, which has no layers to write to."""
    if adata is not None and adata.is_view and adata.isbacked:
        raise ValueError(
            "`adata` is a view of a file, which cannot be written to. Read the cells into memory "
            "with adata[...].to_memory(), or denoise the whole file with out='denoised.zarr'."
        )


def columns_of_user(obs: pd.DataFrame) -> pd.DataFrame:
    """Return a copy without the columns of scvi-tools."""
    return obs.loc[:, [name for name in obs if not str(name).startswith("_scvi")]].copy()


@contextmanager
def restored_on_failure(parts: Sequence[AnnData]) -> Iterator[None]:
    """Restore X, layers, obsm and uns of objects if the body fails."""
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
