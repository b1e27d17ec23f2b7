"""Conditions of a perturbation screen: perturbations, their combinations, doses and contexts."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from betavi._tables import close_matches

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

PERTURBATION, DOSE, CONTEXT, REPLICATE = "perturbation", "dose", "context", "replicate"
"""Keys of the fields of a perturbation screen in a minibatch."""

CONDITION_FIELDS = {
    PERTURBATION: "perturbation_key",
    DOSE: "dose_key",
    CONTEXT: "context_key",
    REPLICATE: "replicate_key",
}
"""Argument of the setup that names the column of a field, by the field's key."""


def split_condition(name: str, control: str, separator: str) -> list[str]:
    """Return the perturbations in a condition, in order, without the control.

    Raise a ValueError for an empty part, or for a perturbation that is named twice.

    Examples
    --------
    >>> split_condition("KLF1+ctrl", "ctrl", "+")
    ['KLF1']
    """
    # the control's own name may have a separator
    if name.strip() == control.strip():
        return []
    parts = [part.strip() for part in name.split(separator)] if separator else [name]
    if not all(parts):
        raise ValueError(
            f"The condition {name!r} has an empty part. Separate perturbations by one {separator!r}, or "
            "pass another `separator` to setup_anndata."
        )
    parts = [part for part in parts if part != control.strip()]
    if len(set(parts)) < len(parts):
        raise ValueError(f"The condition {name!r} names a perturbation twice.")
    return parts


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


def _dose_table(doses: Sequence[Any], most_parts: int, separator: str) -> np.ndarray:
    """Return the doses in each value of a column, ``(n_doses, most_parts)``."""
    table = np.zeros((len(doses), most_parts))
    for row, value in zip(table, doses, strict=True):
        listed = split_doses(value, separator)
        # one number holds for all perturbations of a combination
        row[:] = listed[0] if len(listed) == 1 else 0.0
        row[: len(listed)] = listed[:most_parts]
    return table


class Conditions(NamedTuple):
    """Names and codes of the conditions of a registered object.

    Parameters
    ----------
    perturbations
        Names of the single perturbations.
    parts
        Perturbations of each registered condition, ``(n_conditions, most_parts)``; -1 for no further one.
    doses
        Doses of each registered value of the dose, ``(n_doses, most_parts)``. None without doses.
    pairs
        Pairs of perturbations that were measured together, ``(n_pairs, 2)``.
    contexts
        Names of the contexts.
    control, separator
        Name of the control, and the text between the names of a combination.

    Examples
    --------
    >>> conditions = Conditions.of_names(["A", "A+B", "B", "control"], "control")
    >>> conditions.perturbations, conditions.pair_names
    (('A', 'B'), ['A+B'])
    """

    perturbations: tuple[str, ...]
    parts: np.ndarray
    doses: np.ndarray | None
    pairs: np.ndarray
    contexts: tuple[Any, ...] = ("",)
    control: str = "control"
    separator: str = "+"

    @classmethod
    def of_names(
        cls,
        names: Sequence[str],
        control: str,
        separator: str = "+",
        doses: Sequence[Any] | None = None,
        **others: Any,
    ) -> Conditions:
        """Return the conditions with these names, and these values of the dose."""
        split = [split_condition(str(name), control, separator) for name in names]
        perturbations = tuple(sorted({part for parts in split for part in parts}))
        most = max((len(parts) for parts in split), default=1) or 1
        codes = np.full((len(split), most), -1)
        code_of = {name: code for code, name in enumerate(perturbations)}
        for row, parts in zip(codes, split, strict=True):
            row[: len(parts)] = [code_of[part] for part in parts]
        pairs = {pair for row in codes for pair in combinations(sorted(row[row >= 0]), 2)}
        table = None if doses is None else _dose_table(doses, most, separator)
        measured = np.array(sorted(pairs), dtype=np.int64).reshape(-1, 2)
        return cls(
            perturbations, codes, table, measured, control=control, separator=separator, **others
        )

    @classmethod
    def of_registry(cls, registry: Mapping[str, Any]) -> Conditions:
        """Return the conditions in a model's registry."""
        arguments, fields = registry["setup_args"], registry["field_registries"]

        def categories(key: str) -> list[Any]:
            found = fields.get(key, {}).get("state_registry", {})
            return list(found.get("categorical_mapping", [""]))

        return cls.of_names(
            categories(PERTURBATION),
            arguments["control"],
            arguments["separator"],
            categories(DOSE) if arguments.get("dose_key") is not None else None,
            contexts=tuple(categories(CONTEXT)),
        )

    @property
    def pair_names(self) -> list[str]:
        """Names of the measured pairs."""
        names = self.perturbations
        return [f"{names[first]}{self.separator}{names[second]}" for first, second in self.pairs]

    def codes_of(self, parts: str | list[str]) -> np.ndarray:
        """Return the codes of some perturbations, or of those in the name of a condition.

        The condition may be new. Raise a KeyError for a perturbation that was not measured.
        """
        if not isinstance(parts, list):
            # names may be numbers
            parts = split_condition(str(parts), self.control, self.separator)
        for part in parts:
            if part not in self.perturbations:
                raise KeyError(
                    f"The perturbation {part!r} was not measured. {close_matches(part, self.perturbations)}"
                )
        return np.array([self.perturbations.index(part) for part in parts], dtype=np.int64)
