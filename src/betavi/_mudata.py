"""Compatibility with mudata 0.3 and 0.4."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING

import mudata

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import AbstractContextManager

    from anndata import AnnData
    from mudata import MuData


def assembled(parts: Mapping[str, AnnData]) -> MuData:
    """Return a MuData of several modalities, without copying their columns to its ``obs``.

    mudata 0.3 copies the columns and warns that this will change. Version 0.4 does not copy them.
    """
    with _as_of_version_0_4():
        return mudata.MuData(dict(parts))


def copied(mdata: MuData) -> MuData:
    """Copy an object or a view, and keep the order of the cells.

    If some cells lack a modality, mudata 0.3 sorts the cells of a copied view by modality.
    """
    with _as_of_version_0_4():
        return mdata.copy()


def make_actual(mdata: MuData) -> None:
    """Turn a view into an independent object, in place."""
    if mdata.is_view:
        mdata._init_as_actual(copied(mdata))


def _as_of_version_0_4() -> AbstractContextManager[object]:
    options = getattr(mudata, "set_options", None)
    return nullcontext() if options is None else options(pull_on_update=False)
