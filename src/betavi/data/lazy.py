"""Objects whose matrices stay in their files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
from anndata import AnnData
from anndata.io import read_elem
from pandas.api.types import union_categoricals
from scvi.data._constants import _ADATA_MINIFY_TYPE_UNS_KEY

from betavi._mudata import assembled
from betavi._tables import close_matches
from betavi.data.rows import MOVED_COUNTS
from betavi.data.stored import StackedRows, StoredMatrix, open_file, state_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mudata import MuData

REWRITE = "Read it with anndata.read_h5ad, and write it again."


class Part(NamedTuple):
    """AnnData in a file: file, place in the file, and what is appended to the names of the cells."""

    path: Path
    state: tuple[int, ...]
    at: str = ""
    suffix: str = ""

    @property
    def group(self) -> Any:
        """The open group."""
        file = open_file(self.path, self.state)
        return file[self.at] if self.at else file

    def table(
        self, key: str, columns: Sequence[str] | None, *, may_lack: bool = False
    ) -> pd.DataFrame:
        """Return ``obs`` or ``var``, with all columns or some."""
        group = self.group[key]
        if "column-order" not in group.attrs:
            raise ValueError(f"{self.path} was written by an old version of anndata. {REWRITE}")
        known = [str(column) for column in group.attrs["column-order"]]
        for column in () if may_lack else columns or ():
            if column not in known:
                raise KeyError(
                    f"{self.path} has no column {column!r} in {key}. {close_matches(column, known)}"
                )
        chosen = known if columns is None else [column for column in columns if column in known]
        if any("categories" in group[column].attrs for column in chosen):
            # anndata 0.7 stored categories at another place, and reads them only with the whole table
            return _renamed(read_elem(group)[chosen], self.suffix if key == "obs" else "")
        names = np.asarray(read_elem(group[group.attrs["_index"]]), dtype=object)
        found = {column: read_elem(group[column]) for column in chosen}
        table = pd.DataFrame(found, index=pd.Index(names).astype(str))
        return _renamed(table, self.suffix if key == "obs" else "")


def _renamed(table: pd.DataFrame, suffix: str) -> pd.DataFrame:
    if suffix:
        table.index = table.index + suffix
    return table


def read_lazy(
    paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    columns: Sequence[str] | None = None,
) -> AnnData | MuData:
    """Read files, but leave their count matrices in the files.

    The result is an ordinary object: set it up, train on it, and pass it to every method. Rows of ``X`` and of
    the layers are read from the files when they are needed. The files must not change or move meanwhile.

    Parameters
    ----------
    paths
        One path, or several: ``.h5ad``, ``.h5mu``, or a folder written by ``write_zarr`` of an AnnData
        or a MuData. Several files must have the same genes in the same order. Their cells follow one another. If
        names of cells repeat, ``-0``, ``-1`` and so on is appended to the names, by file.
    columns
        Columns of ``obs`` to read. None reads all columns.

    Returns
    -------
    AnnData or MuData with ``obs`` and ``var`` in memory. ``uns``, ``obsm`` and pairwise matrices are
    not read. If several MuData lack a modality, so do their cells.

    Raises
    ------
    FileNotFoundError
        If a file does not exist.
    ValueError
        If a file has other genes than the first file, lacks a layer, holds another kind of object, or stores a
        matrix by column (CSC).
    KeyError
        If a file lacks one of the columns.

    Examples
    --------
    >>> import betavi
    >>> from tempfile import mkdtemp
    >>> path = f"{mkdtemp()}/cells.h5ad"
    >>> betavi.datasets.simulate_counts(n_cells=60, n_genes=20).write_h5ad(path)
    >>> adata = betavi.data.read_lazy(path)
    >>> betavi.BetaVI.setup_anndata(adata, batch_key="batch")
    >>> model = betavi.BetaVI(adata, n_latent=2)
    >>> model.train(max_epochs=1, enable_progress_bar=False)
    >>> model.get_latent_representation().shape
    (60, 2)
    """
    several = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
    if not several:
        raise ValueError("`paths` is empty. Name at least one file.")
    if isinstance(columns, str):
        raise TypeError(f"`columns` must be a list of names, such as [{columns!r}].")
    parts = [_opened(Path(path).absolute()) for path in several]
    kinds = ["MuData" if "mod" in part.group else "AnnData" for part in parts]
    if len(set(kinds)) > 1:
        other = kinds.index("AnnData" if kinds[0] == "MuData" else "MuData")
        raise ValueError(
            f"{parts[0].path} holds one {kinds[0]}, but {parts[other].path} holds one {kinds[other]}. Read "
            "files of one kind."
        )
    names = [part.table("obs", []).index for part in parts]
    if len(parts) > 1 and names[0].append(names[1:]).has_duplicates:
        parts = [part._replace(suffix=f"-{number}") for number, part in enumerate(parts)]
    return _mudata(parts, columns) if kinds[0] == "MuData" else _anndata(parts, columns)


def _opened(path: Path) -> Part:
    part = Part(path, state_of(path))
    try:
        group = part.group
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error}") from None
    if "obs" not in group or "var" not in group:
        raise ValueError(
            f"{path} holds no AnnData and no MuData. Read files of write_h5ad, of write_zarr, or of MuData.write."
        )
    return part


def _mudata(files: list[Part], columns: Sequence[str] | None) -> MuData:
    order = [list(file.group["mod"].attrs.get("mod-order", file.group["mod"])) for file in files]
    modalities = {}
    for name in dict.fromkeys(str(name) for names in order for name in names):
        parts = [file._replace(at=f"mod/{name}") for file in files if name in file.group["mod"]]
        modalities[name] = _anndata(parts, columns, may_lack=True)
        if not (cells := modalities[name].obs_names).is_unique:
            raise ValueError(
                f"Names of cells repeat in the modality {name!r} of {files[0].path}, e.g. "
                f"{cells[cells.duplicated()][0]!r}. Run obs_names_make_unique() and write the file again."
            )
    found = assembled(modalities)
    obs = _joined([file.table("obs", columns, may_lack=True) for file in files])
    for column in columns or ():
        if column not in obs and not any(column in part.obs for part in modalities.values()):
            raise KeyError(
                f"{files[0].path} has no column {column!r} in obs. {close_matches(column, list(obs))}"
            )
    found.obs = obs.loc[found.obs_names]
    return found


def _anndata(
    parts: list[Part], columns: Sequence[str] | None, *, may_lack: bool = False
) -> AnnData:
    first, *others = parts
    var = first.table("var", None)
    for part in others:
        _check_genes(var.index, part.table("var", []).index, first.path, part.path)
    obs = _joined([part.table("obs", columns, may_lack=may_lack) for part in parts])
    found = AnnData(_stacked(parts, "X"), obs=obs, var=var)
    for name in first.group.get("layers", {}):
        found.layers[name] = _stacked(parts, f"layers/{name}")
    moved = {part.path: _moved_counts(part) for part in parts}
    if len(set(moved.values())) > 1:
        raise ValueError(
            "denoise() moved the counts of some of the files to a layer, but not of all. The counts are in "
            + ", ".join(f"{layer or 'X'} of {path}" for path, layer in moved.items())
        )
    if moved[first.path] is not None:
        found.uns["betavi"] = {MOVED_COUNTS: moved[first.path]}
    return found


def _moved_counts(part: Part) -> str | None:
    """Return the layer that holds the counts, if ``denoise`` moved them. Refuse a minified object."""
    uns = part.group.get("uns", {})
    if _ADATA_MINIFY_TYPE_UNS_KEY in uns:
        raise ValueError(
            f"{part.path} is minified: it holds posteriors in place of counts. It is small, so read it with "
            "anndata.read_h5ad or mudata.read_h5mu."
        )
    if "betavi" not in uns or MOVED_COUNTS not in uns["betavi"]:
        return None
    return str(read_elem(uns["betavi"][MOVED_COUNTS]))


def _stacked(parts: list[Part], key: str) -> StackedRows | None:
    """Return a matrix of all files; None if the first file lacks it."""
    if key not in parts[0].group:
        return None
    for part in parts:
        if key not in part.group:
            raise ValueError(
                f"{part.path} has no {key}, but {parts[0].path} has. Add the matrix, or leave the file out."
            )
    return StackedRows([StoredMatrix(part.group[key], part.path) for part in parts])


def _joined(tables: list[pd.DataFrame]) -> pd.DataFrame:
    """Return tables one after the other. Categories remain categories."""
    found = pd.concat(tables)
    for column in found:
        values = [table[column].array for table in tables if column in table]
        categories = [part for part in values if isinstance(part, pd.Categorical)]
        kinds = {(part.categories.dtype, part.ordered) for part in categories}
        # ordered categories, or categories of several types, remain values
        if len(categories) == len(tables) and len(kinds) == 1 and not categories[0].ordered:
            found[column] = union_categoricals(categories)
    return found


def _check_genes(genes: pd.Index, others: pd.Index, first: Path, path: Path) -> None:
    if genes.equals(others):
        return
    what = "the order of the genes differs"
    if len(only := genes.symmetric_difference(others)):
        what = f"{len(only)} gene(s) are in one file only, e.g. {only[0]!r}"
    raise ValueError(
        f"{path} and {first} cannot be read together: {what}. Write the files again with the same "
        "genes: adata[:, genes].write_h5ad(...)"
    )
