"""The place of the counts in an object: ``X``, a layer, or the layer to which they were moved."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from anndata import AnnData

MOVED_COUNTS = "counts_moved_to"
"""Key of ``uns["betavi"]`` for the layer that holds the counts that were in ``X``."""


def counts_layer(adata: AnnData, layer: str | None) -> str | None:
    """Return the layer with the counts, or that to which they were moved if they were in ``X``.

    Parameters
    ----------
    adata
        The object.
    layer
        The layer that the user named, None for ``X``.

    Returns
    -------
    The name of a layer, None for ``X``.

    Examples
    --------
    >>> import betavi
    >>> from betavi.data import MOVED_COUNTS, counts_layer
    >>> adata = betavi.datasets.simulate_counts(n_cells=10, n_genes=5)
    >>> adata.uns["betavi"] = {MOVED_COUNTS: "counts"}
    >>> counts_layer(adata, None), counts_layer(adata, "raw")
    ('counts', 'raw')
    """
    return adata.uns.get("betavi", {}).get(MOVED_COUNTS) if layer is None else layer


def counts_of(adata: AnnData, layer: str | None) -> Any:
    """Return the counts as the object holds them, in ``X`` or elsewhere.

    Parameters
    ----------
    adata, layer
        See :func:`counts_layer`.

    Returns
    -------
    A matrix, ``(n_cells, n_genes)``.

    Raises
    ------
    KeyError
        If the layer to which they were moved is missing.

    Examples
    --------
    >>> import betavi
    >>> from betavi.data import counts_of
    >>> adata = betavi.datasets.simulate_counts(n_cells=10, n_genes=5)
    >>> counts_of(adata, None) is adata.X
    True
    """
    layer = counts_layer(adata, layer)
    if layer is not None and layer not in adata.layers:
        raise KeyError(
            f"The counts were moved to layers[{layer!r}] when X was denoised, and are not there. If X "
            f"holds counts again, say so: del adata.uns['betavi'][{MOVED_COUNTS!r}]."
        )
    return adata.X if layer is None else adata.layers[layer]
