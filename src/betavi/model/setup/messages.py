"""Messages to the user."""

from __future__ import annotations

import logging
import warnings
from typing import TYPE_CHECKING, Any

from scvi import settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

N_NAMED = 5
"""Cells or genes that a message names before it counts the rest."""


def inform(message: str) -> None:
    """Log a message, where scvi-tools does."""
    logging.getLogger("scvi.betavi").info(message)


def warn(message: str) -> None:
    """Warn the user, as scvi-tools does."""
    warnings.warn(message, UserWarning, stacklevel=settings.warnings_stacklevel)


def name_some(names: Sequence[Any] | pd.Index) -> str:
    """Name the first few, and count the others."""
    shown = ", ".join(repr(name) for name in names[:N_NAMED])
    more = len(names) - N_NAMED
    return f"{shown} and {more} more" if more > 0 else shown
