"""An object of cells that comes in chunks, in memory or in a file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import anndata
import h5py
import numpy as np
import pandas as pd
import zarr
from anndata import AnnData
from scipy import sparse

from betavi._tables import lookup
from betavi.model.files import beside, remove

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Self

ENDINGS: dict[str, Callable[[Path], Any]] = {
    ".h5ad": lambda path: h5py.File(path, "a"),
    # what anndata consolidates it does not let anyone add to
    ".zarr": lambda path: zarr.open_group(str(path), mode="r+", use_consolidated=False),
}
"""How a file of cells is opened, by its ending."""


class Grown:
    """Collects cells.

    Parameters
    ----------
    empty
        An object without cells, with the genes, ``uns``, and the layers that are to have the counts.
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

    def __init__(self, empty: AnnData, out: str | Path | None) -> None:
        self.empty = empty
        self.counts: list[sparse.csr_matrix] = []
        self.obs: list[pd.DataFrame] = []
        self.z: list[np.ndarray] = []
        self.path = None if out is None else Path(out)
        if self.path is None:
            return
        self._open = lookup(ENDINGS, self.path.suffix, "The ending of out")
        if self.path.exists():
            raise FileExistsError(f"{self.path} exists. Remove it, or write to another file.")
        if not self.path.parent.is_dir():
            raise FileNotFoundError(f"There is no folder {self.path.parent}.")

    @property
    def _partial(self) -> Path:
        assert self.path is not None
        return beside(self.path, "partial")

    def __enter__(self) -> Self:
        """Make the file, if there is to be one."""
        if self.path is not None:
            remove(self._partial)
            write = self.empty.write_h5ad if self.path.suffix == ".h5ad" else self.empty.write_zarr
            write(self._partial)
            self._file = self._open(self._partial)
            places = ["X", *(f"layers/{name}" for name in self.empty.layers)]
            self._matrices = [anndata.io.sparse_dataset(self._file[place]) for place in places]
        return self

    def add(self, counts: sparse.csr_matrix, obs: pd.DataFrame, z: np.ndarray) -> None:
        """Take some cells.

        Parameters
        ----------
        counts
            ``(n_cells, n_genes)``.
        obs
            Of the cells, whatever its index.
        z
            Positions, ``(n_cells, n_latent)``.
        """
        self.obs.append(obs)
        self.z.append(z)
        if self.path is None:
            self.counts.append(counts)
            return
        for matrix in self._matrices:
            matrix.append(counts)

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
        if not isinstance(self._file, h5py.File):
            zarr.consolidate_metadata(self._file.store)

    def _of_cells(self) -> tuple[pd.DataFrame, np.ndarray]:
        obs = pd.concat(self.obs, ignore_index=True)
        obs.index = pd.Index([f"generated_{number}" for number in range(len(obs))])
        return obs, np.concatenate(self.z)

    def whole(self) -> AnnData | None:
        """Return the cells, unless they are in a file."""
        if self.path is not None:
            return None
        obs, z = self._of_cells()
        counts = sparse.vstack(self.counts, format="csr")
        layers = {name: counts.copy() for name in self.empty.layers}
        return AnnData(
            counts, obs=obs, var=self.empty.var, uns=self.empty.uns, obsm={"z": z}, layers=layers
        )
