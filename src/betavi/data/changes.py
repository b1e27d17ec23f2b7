"""Detection of change: of a registered object after setup, and of a module's weights."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np
import torch
from scipy import sparse
from scvi.data.fields import LayerField

from betavi.data.rows import Rows

if TYPE_CHECKING:
    from scvi.data import AnnDataManager

MOST_VALUES, MOST_ROWS = 1000, 64
"""Values and rows that are read; normalised counts have hardly a whole number above 0. No benchmark tunes them."""


def weights_digest(module: torch.nn.Module, *context: Any) -> str:
    """Return a digest of a module's weights and buffers, to detect results that are out of date.

    Parameters
    ----------
    module, *context
        The module, and anything else that a result depends on, by its ``repr``.

    Returns
    -------
    Hexadecimal digits, equal if everything is.

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
        # as bytes, since NumPy lacks some of torch's types
        flat = tensor.detach().cpu().reshape(-1).contiguous().view(torch.uint8)
        digest.update(flat.numpy().tobytes())
    return digest.hexdigest()


def look_whole(data: Any) -> bool:
    """Return True if a sample of what :class:`Rows` reads holds whole numbers only.

    Values are sampled from all over it if it is in memory, and from its first rows in a file.
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
    # those of a MuData wrap one each
    fields = {field.registry_key: getattr(field, "adata_field", field) for field in manager.fields}
    return [
        key for key, field in fields.items() if isinstance(field, LayerField) and not field.is_empty
    ]


class RegisteredState(NamedTuple):
    """Number of cells of an object at setup, and if counts were whole numbers, by key."""

    n_cells: int
    is_whole: dict[str, bool]

    @classmethod
    def of(cls, manager: AnnDataManager) -> Self:
        """Return the state of a manager's object."""
        whole = {key: look_whole(manager.get_from_registry(key)) for key in counts_keys(manager)}
        return cls(manager.adata.n_obs, whole)


def check_unchanged(manager: AnnDataManager, before: RegisteredState) -> None:
    """Raise a ValueError if an object's cells or genes changed, or counts have become fractions."""
    if manager.adata.n_obs != before.n_cells:
        raise ValueError(
            f"The object has {manager.adata.n_obs} cells, and had {before.n_cells} when it was set up: "
            "which of them were held out from training is known by their rows. Filter cells before "
            "setup and train again; what encodes or decodes can be asked about a copy meanwhile, "
            "such as get_latent_representation(adata.copy())."
        )
    for key, was_whole in before.is_whole.items():
        data, place = manager.get_from_registry(key), _place(manager, key)
        n_genes = len(manager.get_state_registry(key)["column_names"])
        if data.shape[1] != n_genes:
            raise ValueError(
                f"{place} has {data.shape[1]} genes, and had {n_genes} when it was set up. Filter genes "
                "before setup, and train a new model."
            )
        if was_whole and not look_whole(data):
            raise ValueError(
                f"{place} held whole numbers when it was set up, and holds fractions now: it was "
                "normalised since, and would be taken for counts. Put the counts back; or keep them "
                "from the start, adata.layers['counts'] = adata.X.copy(), set the object up with "
                "layer='counts', and train a new model."
            )


def _place(manager: AnnDataManager, key: str) -> str:
    """Return the user's name of the matrix."""
    at = manager.data_registry[key]
    modality = at.get("mod_key")
    holder = "adata" if modality is None else f"mdata[{modality!r}]"
    return f"{holder}.X" if at["attr_name"] == "X" else f"{holder}.layers[{at['attr_key']!r}]"
