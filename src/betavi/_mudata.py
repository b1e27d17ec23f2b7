"""MuData as both versions of it make them."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING

import mudata

if TYPE_CHECKING:
    from collections.abc import Mapping

    from anndata import AnnData
    from mudata import MuData


def assembled(parts: Mapping[str, AnnData]) -> MuData:
    """Put assays together, without columns of theirs in the object's own ``obs``.

    mudata 0.3 copies them there and says that it soon will not; 0.4 does not, nor has it the option.
    """
    options = getattr(mudata, "set_options", None)
    with options(pull_on_update=False) if options is not None else nullcontext():
        return mudata.MuData(dict(parts))
