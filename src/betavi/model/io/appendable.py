"""An object of cells that comes in chunks, of one assay or several, in memory or in a file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

import anndata
import h5py
import numpy as np
import pandas as pd
import zarr
from anndata import AnnData
from mudata import MuData
from scipy import sparse

from betavi._mudata import assembled
from betavi._tables import lookup
from betavi.model.io.destination import named_layers
from betavi.model.io.files import beside, remove

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType
    from typing import Self

Cells = TypeVar("Cells", AnnData, MuData)
"""What a model returns cells in."""

_HDF5: Callable[[Path], Any] = lambda path: h5py.File(path, "a")  # noqa: E731 - a line of the tables
# what anndata consolidates it does not let anyone add to
_ZARR: Callable[[Path], Any] = lambda path: zarr.open_group(  # noqa: E731
    str(path), mode="r+", use_consolidated=False
)
ENDINGS: dict[type, dict[str, Callable[[Path], Any]]] = {
    AnnData: {".h5ad": _HDF5, ".zarr": _ZARR},
    MuData: {".h5mu": _HDF5, ".zarr": _ZARR},
}
"""How a file of cells is opened, by the kind of the object and the ending of the name."""

PIECE = (2**17,)
"""Entries of a sparse matrix that zarr puts into a file."""

ONLY = ""
"""The name of the assay of an object that has one."""


class Grown(Generic[Cells]):
    """Collects cells.

    Parameters
    ----------
    empty
        An object without cells, with the features, ``uns``, and the layers that are to have the counts.
    out
        A file that the counts are written to as they come; they stay in memory if None. It has its
        name once it is complete.

    Raises
    ------
    FileExistsError
        If there is one already.
    FileNotFoundError
        If there is no such folder.
    """

    def __init__(self, empty: Cells, out: str | Path | None) -> None:
        self.empty = empty
        self.assays: dict[str, AnnData] = (
            dict(empty.mod) if isinstance(empty, MuData) else {ONLY: empty}
        )
        self.counts: dict[str, list[sparse.csr_matrix]] = {name: [] for name in self.assays}
        self.obs: list[pd.DataFrame] = []
        self.z: list[np.ndarray] = []
        self.path = None if out is None else Path(out)
        if self.path is None:
            return
        self._open = lookup(ENDINGS[type(empty)], self.path.suffix, "The ending of out")
        if self.path.exists():
            raise FileExistsError(f"{self.path} exists. Remove it, or write to another file.")
        if not self.path.parent.is_dir():
            raise FileNotFoundError(f"There is no folder {self.path.parent}.")

    @property
    def _partial(self) -> Path:
        assert self.path is not None
        # mudata knows a file by its ending
        return beside(self.path, "partial").with_suffix(self.path.suffix)

    def __enter__(self) -> Self:
        """Make the file, if there is to be one."""
        if self.path is not None:
            remove(self._partial)
            write = f"write_{self.path.suffix[1:]}"
            getattr(self.empty, write)(self._partial)
            self._file = self._open(self._partial)
            self._matrices = {name: self._opened(name) for name in self.assays}
        return self

    def _opened(self, name: str) -> list[Any]:
        """Return the matrices of an assay that are to have the counts."""
        where = f"mod/{name}/" if name else ""
        assay = self.assays[name]
        places = {"X": assay.X} | {f"layers/{k}": v for k, v in named_layers(assay).items()}
        for place, nothing in places.items():
            # of an empty array zarr makes pieces of one entry, and a file of each
            *parents, key = (where + place).split("/")
            group = self._file["/".join(parents)] if parents else self._file
            # there may come more entries than 32 bits count
            nothing.indptr = nothing.indptr.astype(np.int64)
            anndata.io.write_elem(group, key, nothing, dataset_kwargs={"chunks": PIECE})
        return [anndata.io.sparse_dataset(self._file[where + place]) for place in places]

    def add(
        self, counts: Mapping[str, sparse.csr_matrix], obs: pd.DataFrame, z: np.ndarray
    ) -> None:
        """Take some cells.

        Parameters
        ----------
        counts
            By assay, ``(n_cells, n_features)``.
        obs
            Of the cells, whatever its index.
        z
            Positions, ``(n_cells, n_latent)``.
        """
        self.obs.append(obs)
        self.z.append(z)
        for name, part in counts.items():
            if self.path is None:
                self.counts[name].append(part)
                continue
            for matrix in self._matrices[name]:
                matrix.append(part)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Complete the file, or remove what there is of it."""
        if self.path is None:
            return
        is_complete = False
        try:
            if kind is None:
                self._complete()
                is_complete = True
        finally:
            if isinstance(self._file, h5py.File):
                self._file.close()
            if is_complete:
                self._partial.rename(self.path)
            else:
                remove(self._partial)

    def _complete(self) -> None:
        obs, z = self._of_cells()
        anndata.io.write_elem(self._file, "obs", obs)
        anndata.io.write_elem(self._file["obsm"], "z", z)
        for name in filter(None, self.assays):
            anndata.io.write_elem(self._file[f"mod/{name}"], "obs", obs[[]])
            # which cells have the assay, and where in it they are, from 1 on
            anndata.io.write_elem(self._file["obsm"], name, np.ones((len(obs), 1), dtype=bool))
            rows = np.arange(1, len(obs) + 1, dtype=np.uint32)
            anndata.io.write_elem(self._file["obsmap"], name, rows)
        if not isinstance(self._file, h5py.File):
            zarr.consolidate_metadata(self._file.store)

    def _of_cells(self) -> tuple[pd.DataFrame, np.ndarray]:
        obs = pd.concat(self.obs, ignore_index=True)
        obs.index = pd.Index([f"generated_{number}" for number in range(len(obs))])
        return obs, np.concatenate(self.z)

    def whole(self) -> Cells | None:
        """Return the cells, unless they are in a file."""
        if self.path is not None:
            return None
        obs, z = self._of_cells()
        parts = {name: self._assay(name, obs.index) for name in self.assays}
        found = assembled(parts) if isinstance(self.empty, MuData) else parts[ONLY]
        found.obs, found.obsm["z"] = obs, z
        found.uns.update(self.empty.uns)
        return cast("Cells", found)

    def _assay(self, name: str, names: pd.Index) -> AnnData:
        counts, empty = sparse.vstack(self.counts[name], format="csr"), self.assays[name]
        layers = {layer: counts.copy() for layer in named_layers(empty)}
        return AnnData(counts, obs=pd.DataFrame(index=names), var=empty.var, layers=layers)
