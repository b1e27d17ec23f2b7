"""What a user says, looked up and checked once, at the door."""

from __future__ import annotations

from difflib import get_close_matches
from numbers import Integral
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

T = TypeVar("T")


N_SUGGESTED, N_LISTED, MOST_COMPARED = 3, 20, 10_000
"""How many names an error suggests or lists, and of how many it looks for one that is alike, which
takes time."""


def close_matches(word: object, choices: Iterable[object]) -> str:
    """Say which of ``choices`` looks like ``word``, or list the first of them, as a sentence."""
    # scvi-tools' own columns are nothing that a user meant
    names = [str(choice) for choice in choices if not str(choice).startswith("_scvi")]
    # the same but for the case, or a part of the name, as of CD79A in CD79A_ENSG00000105369
    start = str(word).lower()
    similar = sorted((name for name in names if start and name.lower().startswith(start)), key=len)[
        :N_SUGGESTED
    ]
    few = names if len(names) <= MOST_COMPARED and not similar else []
    similar = similar or get_close_matches(str(word), few, n=N_SUGGESTED, cutoff=0.5)
    if similar:
        return f"Did you mean {' or '.join(repr(name) for name in similar)}?"
    if not names:
        return "There are none."
    more = f" and {len(names) - N_LISTED} more" if len(names) > N_LISTED else ""
    return f"There is: {', '.join(repr(name) for name in names[:N_LISTED])}{more}."


def check_whole(name: str, number: object) -> None:
    """Check that a number counts something.

    Raises
    ------
    ValueError
        If it is no whole number, or less than 1.
    """
    if not isinstance(number, Integral) or number < 1:
        raise ValueError(f"{name} must be a whole number of at least 1, not {number!r}.")


def lookup(table: Mapping[str, T], word: str, what: str) -> T:
    """Return ``table[word]``.

    Raises
    ------
    ValueError
        If ``word`` is not in the table. The message lists the table.
    """
    if not isinstance(word, str) or word not in table:
        choices = ", ".join(repr(name) for name in table)
        raise ValueError(f"{what} must be one of {choices}, not {word!r}.")
    return table[word]
