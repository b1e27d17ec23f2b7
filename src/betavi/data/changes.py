"""Detection of changes in registered objects and in a module's weights."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np
import pandas as pd
import torch
from scipy import sparse
from scvi import REGISTRY_KEYS
from scvi.data.fields import LayerField

from betavi.data.conditions import CONDITION_FIELDS
from betavi.data.rows import Rows

if TYPE_CHECKING:
    from scvi.data import AnnDataManager

MOST_VALUES, MOST_ROWS = 1000, 64
"""Most values and rows sampled. In normalised counts, nearly all values above 0 have decimals."""


def weights_digest(module: torch.nn.Module, *context: Any) -> str:
    """Return a digest of a module's weights and buffers, to detect results that are out of date.

    Parameters
    ----------
    module
        Module whose weights and buffers are read.
    *context
        Other values that the result depends on. Their ``repr`` is used.

    Returns
    -------
    Hexadecimal digits, equal if all inputs are equal.

    Examples
    --------
    >>> from betavi.data import weights_digest
    >>> layer = torch.nn.Linear(2, 1)
    >>> digest = weights_digest(layer, 1.0)
    >>> digest == weights_digest(layer, 1.0), digest == weights_digest(layer, 2.0)
    (True, False)
    """
    digest = hashlib.sha256(repr(context).encode())
    for name, tensor in module.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        # as bytes, because NumPy lacks some of torch's types
        flat = tensor.detach().cpu().reshape(-1).contiguous().view(torch.uint8)
        digest.update(flat.numpy().tobytes())
    return digest.hexdigest()


def sample_is_whole(data: Any) -> bool:
    """Return True if a sample of a matrix holds whole numbers only.

    The sample covers all rows of a matrix in memory, but only the first rows of a file.
    """
    if sparse.issparse(data):
        values = data.data[:: max(1, data.nnz // MOST_VALUES)]
    else:
        rows = Rows(data)
        step = 1 if rows.in_file else max(1, rows.shape[0] // MOST_ROWS)
        cut = rows[np.arange(0, rows.shape[0], step)[:MOST_ROWS]]
        values = cut.data if sparse.issparse(cut) else np.asarray(cut)
    return bool((values == np.floor(values)).all())


def counts_keys(manager: AnnDataManager) -> list[str]:
    """Return the keys of the fields that hold counts."""
    # a field of a MuData wraps the field of one modality
    fields = {field.registry_key: getattr(field, "adata_field", field) for field in manager.fields}
    return [
        key for key, field in fields.items() if isinstance(field, LayerField) and not field.is_empty
    ]


COVARIATES = {
    REGISTRY_KEYS.BATCH_KEY: "batch_key",
    REGISTRY_KEYS.LABELS_KEY: "labels_key",
    REGISTRY_KEYS.SIZE_FACTOR_KEY: "size_factor_key",
    REGISTRY_KEYS.CAT_COVS_KEY: "categorical_covariate_keys",
    REGISTRY_KEYS.CONT_COVS_KEY: "continuous_covariate_keys",
    **CONDITION_FIELDS,
}
"""Argument of the setup that names the columns of a field, by the field's key."""


class RegisteredState(NamedTuple):
    """State of an object at setup.

    Number of cells, True for each count matrix that held whole numbers, and the covariates.
    scvi-tools writes the covariates to columns of the object, which another setup overwrites.
    """

    n_cells: int
    is_whole: dict[str, bool]
    covariates: dict[str, Any]

    @classmethod
    def of(cls, manager: AnnDataManager) -> Self:
        """Return the present state of a manager's object."""
        whole = {
            key: sample_is_whole(manager.get_from_registry(key)) for key in counts_keys(manager)
        }
        stored = [key for key in COVARIATES if key in manager.data_registry]
        covariates = {key: manager.get_from_registry(key).copy() for key in stored}
        return cls(manager.adata.n_obs, whole, covariates)


def check_unchanged(manager: AnnDataManager, before: RegisteredState) -> None:
    """Raise a ValueError if cells or genes changed since setup, or counts are no longer whole."""
    if manager.adata.n_obs != before.n_cells:
        raise ValueError(
            f"The object has {manager.adata.n_obs} cells, but had {before.n_cells} at setup. The "
            "model stores the row numbers of its held-out cells, so the rows must not change. "
            "Filter cells before setup, and train a new model. To encode or decode the present "
            "cells with this model, pass a copy: get_latent_representation(adata.copy())"
        )
    for key, was_whole in before.is_whole.items():
        data, name = manager.get_from_registry(key), _matrix_name(manager, key)
        n_genes = len(manager.get_state_registry(key)["column_names"])
        if data.shape[1] != n_genes:
            raise ValueError(
                f"{name} has {data.shape[1]} genes, but had {n_genes} at setup. Filter genes before "
                "setup, and train a new model."
            )
        if was_whole and not sample_is_whole(data):
            raise ValueError(
                f"{name} held whole numbers at setup, but now holds non-integer values. The values "
                "were probably normalised, but the model would read them as counts. Restore the "
                "counts. Or, before normalisation, copy the counts to a layer for "
                "setup_anndata(layer=...): adata.layers['counts'] = adata.X.copy()"
            )


def check_covariates(manager: AnnDataManager, before: RegisteredState) -> None:
    """Raise a ValueError if a column of a covariate changed since setup. It may be missing."""
    arguments, obs = manager.registry["setup_args"], manager.adata.obs
    for key, values in before.covariates.items():
        columns = arguments.get(COVARIATES[key]) or []
        columns = [columns] if isinstance(columns, str) else list(columns)
        state = manager.get_state_registry(key)
        for column, old in zip(
            columns, np.asarray(values).reshape(before.n_cells, -1).T, strict=False
        ):
            if column not in obs:
                continue
            known = state.get("mappings", {}).get(column, state.get("categorical_mapping"))
            new = obs[column] if known is None else pd.Index(known).get_indexer(obs[column])
            if (changed := np.asarray(new) != old).any():
                raise ValueError(
                    f"obs[{column!r}] changed after setup in {changed.sum()} cell(s), e.g. "
                    f"{obs.index[changed][0]!r}, but the model would train on the values at setup. "
                    "Restore the column, or run the setup again and create a new model."
                )


def _matrix_name(manager: AnnDataManager, key: str) -> str:
    entry = manager.data_registry[key]
    modality = entry.get("mod_key")
    holder = "adata" if modality is None else f"mdata[{modality!r}]"
    return f"{holder}.X" if entry["attr_name"] == "X" else f"{holder}.layers[{entry['attr_key']!r}]"
