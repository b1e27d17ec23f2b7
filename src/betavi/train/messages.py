"""Messages of libraries that say nothing about the user's run."""

from __future__ import annotations

import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING

from lightning.fabric.utilities.rank_zero import rank_zero_module

if TYPE_CHECKING:
    import logging
    from collections.abc import Iterator

ADVERTISED = ("💡 Tip:", "Loading `train_dataloader`")
"""Beginnings of messages of Lightning about its other products and its internals."""

OUTDATED = r"`isinstance\(treespec, LeafSpec\)` is deprecated"
"""Beginning of a warning about a call from Lightning into PyTorch."""


@contextmanager
def without_advertising() -> Iterator[None]:
    """Leave out Lightning's messages about other products and about its own outdated calls.

    Examples
    --------
    >>> with without_advertising():
    ...     rank_zero_module.rank_zero_info("💡 Tip: Buy this.")
    """
    log = rank_zero_module.log
    log.addFilter(_is_about_the_run)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", OUTDATED, FutureWarning)
            yield
    finally:
        log.removeFilter(_is_about_the_run)


def _is_about_the_run(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith(ADVERTISED)
