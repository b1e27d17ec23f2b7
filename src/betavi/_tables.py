"""Look a user's word up in a table, once, at the door."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

T = TypeVar("T")


def close_matches(word: object, choices: Iterable[object]) -> str:
    """Say which of ``choices`` looks like ``word``, or list them all, as half a sentence."""
    names = [str(choice) for choice in choices]
    similar = get_close_matches(str(word), names, n=3, cutoff=0.5)
    if similar:
        return f"Did you mean {' or '.join(repr(name) for name in similar)}?"
    return f"There is: {', '.join(repr(name) for name in names) or 'nothing'}."


def lookup(table: Mapping[str, T], word: str, what: str) -> T:
    """Return ``table[word]``.

    Raises
    ------
    ValueError
        If ``word`` is not in the table. The message lists the table.
    """
    if word not in table:
        choices = ", ".join(repr(name) for name in table)
        raise ValueError(f"{what} must be one of {choices}, not {word!r}.")
    return table[word]
