"""Minibatches of registered cells, and their keys."""

from __future__ import annotations

from copy import copy
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from scipy import sparse
from scvi import REGISTRY_KEYS
from scvi.data import AnnDataManager, AnnTorchDataset

from betavi.data.changes import RegisteredState, check_covariates, check_unchanged
from betavi.data.rows import AlignedRows, Rows, counts_layer, counts_of, is_in_file
from betavi.kernels.sparse import compressed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

COUNTS: str = REGISTRY_KEYS.X_KEY
"""Key of the counts in a minibatch, and name of an AnnData's only modality."""


NOTHING = RegisteredState(0, {}, {})
"""State of an object that is not registered yet."""


def present_key(modality: str) -> str:
    """Return the minibatch key of the mask of cells that have a modality.

    Parameters
    ----------
    modality
        Key of the modality's counts.

    Returns
    -------
    Key of a mask, ``(n_cells, 1)``.

    Examples
    --------
    >>> from betavi.data import present_key
    >>> present_key("adt")
    'adt_present'
    """
    return f"{modality}_present"


class ExpertKeys(NamedTuple):
    """Minibatch keys of one modality in a minified object, which stores no counts.

    Parameters
    ----------
    mean, variance
        Keys of the mean and the variance, ``(n_cells, n_latent)``, of the posterior from this
        modality alone.
    total
        Key of the total counts, ``(n_cells, 1)``.

    Examples
    --------
    >>> from betavi.data import ExpertKeys
    >>> ExpertKeys("rna_mean", "rna_variance", "rna_total").total
    'rna_total'
    """

    mean: str
    variance: str
    total: str


def expert_keys(modality: str) -> ExpertKeys:
    """Return the minibatch keys of one modality in a minified object.

    Parameters
    ----------
    modality
        Key of the modality's counts.

    Returns
    -------
    The three keys.

    Examples
    --------
    >>> from betavi.data import expert_keys
    >>> expert_keys("rna")
    ExpertKeys(mean='rna_mean', variance='rna_variance', total='rna_total')
    """
    if modality == COUNTS:
        keys = REGISTRY_KEYS
        return ExpertKeys(keys.LATENT_QZM_KEY, keys.LATENT_QZV_KEY, keys.OBSERVED_LIB_SIZE)
    return ExpertKeys(*(f"{modality}_{field}" for field in ("mean", "variance", "total")))


class CellDataset(AnnTorchDataset):
    """Registered fields of chosen cells, in the order given, also from a file.

    ``getitem_tensors``: keys of the fields to read, with their types. ``indices``: rows of the
    object, as integers or as a mask. None means all rows. ``load_sparse_tensor``: return CSR
    tensors.
    """

    def __init__(
        self,
        adata_manager: AnnDataManager,
        indices: Sequence[int] | Sequence[bool] | None = None,
        getitem_tensors: list[str] | dict[str, type] | None = None,
        load_sparse_tensor: bool = False,
    ) -> None:
        super().__init__(adata_manager, getitem_tensors, load_sparse_tensor)
        everyone = np.arange(super().__len__())
        chosen = everyone if indices is None else np.asarray(indices)
        # an empty list becomes an array of floats, which NumPy rejects as an index
        self.indices = everyone[chosen if chosen.size else chosen.astype(np.int64)]
        rows = {key: adata_manager.rows(key) for key in self.keys_and_dtypes}
        self._rows = {key: part for key, part in rows.items() if part is not None}
        modalities = {key: adata_manager.data_registry[key].get("mod_key") for key in self._rows}
        self._present = {
            present_key(modality): self._rows[key].present[:, None]
            for key, modality in modalities.items()
            if modality is not None
        }

    @property
    def in_file(self) -> bool:
        """True if any field is read from a file."""
        return any(rows.in_file for rows in self._rows.values())

    @property
    def fields(self) -> dict[str, Rows | AlignedRows]:
        """Rows of every field, and masks of the cells that have each modality, by key."""
        return self._rows | {key: Rows(mask) for key, mask in self._present.items()}

    def type_of(self, key: str) -> type:
        """Return the type of a field in a minibatch."""
        return self.keys_and_dtypes.get(key, bool)

    def in_memory(self, indexes: Sequence[int] | np.ndarray) -> CellDataset:
        """Return a data set of the cells at some positions, with their fields in memory."""
        cells, loaded = self.indices[indexes], copy(self)
        loaded.indices = np.arange(len(cells))
        loaded._rows = {key: Rows(rows[cells]) for key, rows in self._rows.items()}
        loaded._present = {key: mask[cells] for key, mask in self._present.items()}
        return loaded

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, indexes: int | Sequence[int] | slice) -> dict[str, Tensor]:
        """Return the fields of the cells at some positions, each ``(n_cells, n_columns)``."""
        cells = np.atleast_1d(self.indices[indexes])
        fields = {
            key: self._cut(rows, cells, self.keys_and_dtypes[key])
            for key, rows in self._rows.items()
        }
        return fields | {key: torch.from_numpy(mask[cells]) for key, mask in self._present.items()}

    def _cut(self, rows: Rows | AlignedRows, cells: np.ndarray, dtype: type) -> Tensor:
        if self.load_sparse_tensor and not rows.is_image:
            cut = rows[cells]
            if sparse.issparse(cut):
                # compiled loops read every entry as a separate count
                # after the conversion, because a small integer type would overflow
                cut = cut.astype(dtype)
                cut.sum_duplicates()
                starts, columns, values = map(torch.from_numpy, (cut.indptr, cut.indices, cut.data))
                return compressed(starts, columns, values, cut.shape)
        return torch.from_numpy(np.ascontiguousarray(rows.dense(cells, dtype)))


class CellManager(AnnDataManager):
    """scvi-tools' manager of registered fields, with minibatches read by :class:`Rows`.

    Parameters
    ----------
    fields, setup_method_args, validation_checks
        See :class:`scvi.data.AnnDataManager`.

    Examples
    --------
    >>> import betavi
    >>> adata = betavi.datasets.simulate_counts(n_cells=50, n_genes=20)
    >>> betavi.BetaVI.setup_anndata(adata)
    >>> betavi.BetaVI(adata).adata_manager.rows("X").shape
    (50, 20)
    """

    def register_fields(self, adata: Any, *args: Any, **kwargs: Any) -> None:
        """Register the fields, and record the object's state for :meth:`check_unchanged`."""
        self._registered = NOTHING
        super().register_fields(adata, *args, **kwargs)
        self._registered = RegisteredState.of(self)

    def validate(self) -> None:
        """Do nothing, because covariates are stored and no other setup changes them.

        scvi-tools would register the object again, with columns that may have changed.
        """

    def check_unchanged(self) -> None:
        """See :func:`betavi.data.changes.check_unchanged`."""
        check_unchanged(self, self._registered)

    def check_covariates(self) -> None:
        """See :func:`betavi.data.changes.check_covariates`."""
        check_covariates(self, self._registered)

    def get_from_registry(self, registry_key: str) -> Any:
        """Return a registered field: covariates as at setup, counts also after denoising."""
        if registry_key in self._registered.covariates:
            return self._registered.covariates[registry_key]
        entry = self.data_registry[registry_key]
        modality = entry.get("mod_key")
        holder = self.adata if modality is None else self.adata[modality]
        if entry["attr_name"] == "X" and counts_layer(holder, None) is not None:
            return counts_of(holder, None)
        return super().get_from_registry(registry_key)

    @property
    def in_file(self) -> bool:
        """True if any field is read from a file."""
        return any(is_in_file(self.get_from_registry(key)) for key in self.data_registry)

    def rows(self, key: str) -> Rows | AlignedRows | None:
        """Return the rows of a field. None for a string in ``uns`` of a minified object."""
        data = self.get_from_registry(key)
        if type(data) is str:
            return None
        modality = self.data_registry[key].get("mod_key")
        if modality is None:
            return Rows(data)
        # MuData numbers the rows of a modality from 1
        return AlignedRows(Rows(data), self.adata.obsmap[modality].astype(np.int64) - 1)

    def create_torch_dataset(
        self,
        indices: Sequence[int] | Sequence[bool] | None = None,
        data_and_attributes: list[str] | dict[str, type] | None = None,
        load_sparse_tensor: bool = False,
    ) -> CellDataset:
        """Return the data set that scvi-tools' loaders and splitters read."""
        return CellDataset(self, indices, data_and_attributes, load_sparse_tensor)
