"""Rollback of an object after a failure."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from scvi._types import AnnOrMuData


@contextmanager
def untouched_on_failure(adata: AnnOrMuData) -> Iterator[None]:
    """Restore the obs, obsm and uns of ``adata`` if the body fails.

    scvi-tools registers fields one after the other, each writing its codes into the object.
    """
    obs = adata.obs.copy(deep=False)
    obsm, uns = dict(adata.obsm), dict(adata.uns)
    try:
        yield
    except BaseException:
        adata.obs = obs
        for mapping, before in ((adata.obsm, obsm), (adata.uns, uns)):
            for key in set(mapping) - set(before):
                del mapping[key]
            mapping.update(before)
        raise
