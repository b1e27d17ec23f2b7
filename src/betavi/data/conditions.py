"""Conditions of a perturbation screen: perturbations, their combinations, doses and contexts."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from betavi._tables import close_matches
from betavi.data.doses import dose_table

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


def condition_name(parts: Sequence[str], control: str, separator: str) -> str:
    """Return the name of a condition: its perturbations in alphabetical order, or the control.

    Examples
    --------
    >>> condition_name(["KLF1", "CEBPA"], "ctrl", "+")
    'CEBPA+KLF1'
    """
    return separator.join(sorted(parts)) or control


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
        table = None if doses is None else dose_table(doses, most, separator)
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

    def key_of(self, code: np.ndarray) -> tuple[tuple[int, ...], tuple[float, ...] | None]:
        """Return the perturbations and the doses of a group of cells, in the order of perturbations.

        ``code`` has the codes of its condition and of its dose. Controls have no dose.
        """
        row = self.parts[code[0]]
        parts = row[row >= 0]
        order = np.argsort(parts)
        if self.doses is None or not len(parts):
            return tuple(parts[order].tolist()), None
        doses = self.doses[code[1]][: len(parts)]
        return tuple(parts[order].tolist()), tuple(doses[order].tolist())

    def name_of(self, name: str) -> str:
        """Return the name of a condition with its perturbations in alphabetical order."""
        return condition_name(
            split_condition(name, self.control, self.separator), self.control, self.separator
        )

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
