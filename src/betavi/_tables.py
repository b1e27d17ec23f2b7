"""Lookup and validation of values that users pass."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields
from difflib import get_close_matches
from numbers import Integral, Real
from typing import TYPE_CHECKING, TypeVar, cast

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable

    from _typeshed import DataclassInstance

T = TypeVar("T")


LARGEST_SINGLE = float(np.finfo(np.float32).max)
"""Largest number of single precision, in which models compute."""

N_SUGGESTED, N_LISTED, MOST_COMPARED = 3, 20, 10_000
"""Most names suggested, most names listed, and most names searched for a similar one."""


def close_matches(word: object, choices: Iterable[object]) -> str:
    """Return a sentence with the ``choices`` most similar to ``word``, or with the first ones."""
    # a user does not mean the columns that scvi-tools adds
    names = [str(choice) for choice in choices if not str(choice).startswith("_scvi")]
    # names that continue the word, in any case, as CD79A_ENSG00000105369 continues cd79a
    start = str(word).lower()
    similar = sorted((name for name in names if start and name.lower().startswith(start)), key=len)[
        :N_SUGGESTED
    ]
    few = names if len(names) <= MOST_COMPARED and not similar else []
    similar = similar or get_close_matches(str(word), few, n=N_SUGGESTED, cutoff=0.5)
    if similar:
        return f"Did you mean {' or '.join(repr(name) for name in similar)}?"
    if not names:
        return "No names are available."
    more = f" and {len(names) - N_LISTED} more" if len(names) > N_LISTED else ""
    return f"Available: {', '.join(repr(name) for name in names[:N_LISTED])}{more}."


def check_whole(name: str, number: object) -> None:
    """Raise a ValueError unless a number is whole and at least 1."""
    if isinstance(number, bool) or not isinstance(number, Integral) or number < 1:
        raise ValueError(f"{name} must be a whole number of at least 1, not {number!r}.")


def check_flag(name: str, value: object) -> None:
    """Raise a TypeError unless a value is True or False. 1 and 0 are accepted, as in Python.

    Examples
    --------
    >>> from betavi._tables import check_flag
    >>> check_flag("silent", True)
    """
    is_flag = isinstance(value, Integral | np.bool_) and value in (0, 1)
    if not is_flag:
        raise TypeError(f"`{name}` must be True or False, not {value!r}.")


def check_size(name: str, value: object) -> None:
    """Raise a ValueError for a finite number that single precision cannot hold.

    Examples
    --------
    >>> from betavi._tables import check_size
    >>> check_size("beta", 4.0)
    """
    if isinstance(value, Real) and LARGEST_SINGLE < cast("float", abs(value)) < math.inf:
        raise ValueError(
            f"`{name}` must be at most {LARGEST_SINGLE:.1e}, the largest number of single precision, "
            "in which models compute."
        )


def check_mapping(name: str, value: object) -> None:
    """Raise a TypeError unless a value is a dictionary.

    Examples
    --------
    >>> from betavi._tables import check_mapping
    >>> check_mapping("plan_kwargs", {"lr": 1e-3})
    """
    if not isinstance(value, Mapping):
        raise TypeError(f"`{name}` must be a dictionary of options, not {value!r}.")


def check_fields(options: DataclassInstance) -> None:
    """Raise an error if a value is of another kind than its field, or too large a number."""
    for field in fields(options):
        value = getattr(options, field.name)
        check_size(field.name, value)
        if isinstance(field.default, bool):
            check_flag(field.name, value)
        elif "dict" in str(field.type) and value is not None:
            check_mapping(field.name, value)
        elif "Callable" in str(field.type) and value is not None and not callable(value):
            raise TypeError(f"`{field.name}` must be a function, not {value!r}.")


def lookup(table: Mapping[str, T], word: str, what: str) -> T:
    """Return ``table[word]``, or raise a ValueError that lists the words of the table."""
    if not isinstance(word, str) or word not in table:
        choices = ", ".join(repr(name) for name in table)
        raise ValueError(f"{what} must be one of {choices}, not {word!r}.")
    return table[word]
