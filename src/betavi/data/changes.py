"""What was done to an object after it was set up, found before it is read again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np
from scipy import sparse
from scvi.data.fields import LayerField

from betavi.data.rows import Rows

if TYPE_CHECKING:
    from scvi.data import AnnDataManager

MOST_VALUES, MOST_ROWS = 1000, 64
"""How much is looked at: whoever normalises counts leaves hardly a whole number above zero."""


def look_whole(data: Any) -> bool:
    """Say whether some of a matrix' values, from all over it if it is in memory, are whole numbers.

    Parameters
    ----------
    data
        ``(n_cells, n_genes)``, whatever :class:`Rows` reads.

    Returns
    -------
    False if one of those looked at is a fraction.

    Raises
    ------
    TypeError
        If ``data`` is something else.

    Examples
    --------
    >>> import numpy as np
    >>> from betavi.data.changes import look_whole
    >>> look_whole(np.array([[0, 2], [1, 0]])), look_whole(np.array([[0.0, 0.5]]))
    (True, False)
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


class Seen(NamedTuple):
    """What was seen of an object when it was set up: its cells, and by key whether counts were whole."""

    n_cells: int
    is_whole: dict[str, bool]

    @classmethod
    def of(cls, manager: AnnDataManager) -> Self:
        """Look at the object of a manager."""
        keys = counts_keys(manager)
        return cls(
            manager.adata.n_obs, {key: look_whole(manager.get_from_registry(key)) for key in keys}
        )


def check_unchanged(manager: AnnDataManager, seen: Seen) -> None:
    """Check that an object has the cells, the genes and the counts that it was set up with.

    Parameters
    ----------
    manager
        Of the object.
    seen
        What it was when it was set up.

    Raises
    ------
    ValueError
        If it lost or gained cells or genes, or counts have become fractions.
    """
    if manager.adata.n_obs != seen.n_cells:
        raise ValueError(
            f"The object has {manager.adata.n_obs} cells, and had {seen.n_cells} when it was set up: "
            "which of them were held out from training is known by their rows. Filter cells before "
            "setup and train again; what encodes or decodes can be asked about a copy meanwhile, "
            "such as get_latent_representation(adata.copy())."
        )
    for key, was_whole in seen.is_whole.items():
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
    """Return what the user calls the matrix."""
    at = manager.data_registry[key]
    modality = at.get("mod_key")
    holder = "adata" if modality is None else f"mdata[{modality!r}]"
    return f"{holder}.X" if at["attr_name"] == "X" else f"{holder}.layers[{at['attr_key']!r}]"
