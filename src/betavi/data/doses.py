"""Doses of conditions: numbers, or text with one number for each perturbation of a combination."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence


def split_doses(value: Any, separator: str) -> list[float]:
    """Return the doses in one value of a column of doses. Raise a ValueError for other values."""
    words = value.split(separator) if separator and isinstance(value, str) else [value]
    doses = _numbers(words)
    if np.isnan(doses).any() and len(words) > 1:
        # a number with the separator in its exponent: 1e+02
        doses = _numbers([value])
    if not all(0 <= dose < np.inf for dose in doses):
        raise ValueError(
            f"The dose {value!r} is not a number of at least 0. For a combination, write one dose for "
            f"each perturbation, such as '1{separator}0.5', or one number for all."
        )
    return doses


def joined_doses(doses: Sequence[float] | np.ndarray, separator: str) -> float | str:
    """Return the doses of a condition as one value of a column, which :func:`split_doses` reads.

    Examples
    --------
    >>> joined_doses([1.0, 0.5], "+"), joined_doses([2.0, 2.0], "+"), joined_doses([], "+")
    ('1+0.5', 2.0, 0.0)
    """
    different = list(dict.fromkeys(map(float, doses))) or [0.0]
    return different[0] if len(different) == 1 else separator.join(f"{dose:g}" for dose in doses)


def _numbers(words: list[Any]) -> list[float]:
    """Return words as numbers. NaN if one of them is not a number."""
    try:
        return [float(word) for word in words]
    except (TypeError, ValueError):
        return [float("nan")]


def dose_table(doses: Sequence[Any], most_parts: int, separator: str) -> np.ndarray:
    """Return the doses in each value of a column, ``(n_doses, most_parts)``."""
    table = np.zeros((len(doses), most_parts))
    for row, value in zip(table, doses, strict=True):
        listed = split_doses(value, separator)
        # one number holds for all perturbations of a combination
        row[:] = listed[0] if len(listed) == 1 else 0.0
        row[: len(listed)] = listed[:most_parts]
    return table


def doses_of(name: str, n_parts: int, value: Any, control: str, separator: str) -> list[float]:
    """Return the doses of the perturbations of a condition. Raise a ValueError if they do not fit.

    A control has none.

    Examples
    --------
    >>> doses_of("A+B", 2, "1+0.5", "control", "+"), doses_of("A+B", 2, 3, "control", "+")
    ([1.0, 0.5], [3.0, 3.0])
    """
    doses = split_doses(value, separator)
    if not n_parts:
        return []
    if min(doses) == 0:
        raise ValueError(
            f"Cells of the condition {name!r} have the dose {value!r}, but it must be above 0. If they are "
            f"controls, give them the control's name, {control!r}. Otherwise, drop these cells."
        )
    if len(doses) not in (1, n_parts):
        raise ValueError(
            f"Cells of the condition {name!r} have the dose {value!r}, but it must be one number, or one "
            f"for each of {n_parts} perturbation(s), separated by {separator!r}."
        )
    return doses if len(doses) == n_parts else doses * n_parts
