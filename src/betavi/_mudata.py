"""MuData as both versions of it make them."""

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
    """Put assays together, without columns of theirs in the object's own ``obs``.

    mudata 0.3 copies them there and says that it soon will not; 0.4 does not, nor has it the option.
    """
    with _as_of_version_0_4():
        return mudata.MuData(dict(parts))


def copied(mdata: MuData) -> MuData:
    """Copy an object or a view, its cells in the same order.

    mudata 0.3 sorts the cells of a copied view by its modalities, if some cells lack one.
    """
    with _as_of_version_0_4():
        return mdata.copy()


def make_actual(mdata: MuData) -> None:
    """Let a view become an object of its own, in place."""
    if mdata.is_view:
        mdata._init_as_actual(copied(mdata))


def _as_of_version_0_4() -> AbstractContextManager[object]:
    options = getattr(mudata, "set_options", None)
    return nullcontext() if options is None else options(pull_on_update=False)
