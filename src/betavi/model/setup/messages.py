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
"""Number of names that a message lists. Further names are only counted."""


def inform(message: str) -> None:
    """Log a message with scvi-tools' logger."""
    logging.getLogger("scvi.betavi").info(message)


def warn(message: str) -> None:
    """Raise a UserWarning at scvi-tools' stack level."""
    warnings.warn(message, UserWarning, stacklevel=settings.warnings_stacklevel)


def name_some(names: Sequence[Any] | pd.Index) -> str:
    """List the first names, and count the others."""
    shown = ", ".join(repr(name) for name in names[:N_NAMED])
    more = len(names) - N_NAMED
    return f"{shown} and {more} more" if more > 0 else shown
