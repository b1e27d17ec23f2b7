"""Measurements of single and combined perturbations, read from a table."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from betavi._tables import close_matches

PERCENT = 1.5  # mean viability of controls above which values are not fractions
OTHER_SEPARATORS = ("+", "|", "_", ":", "/", "&", ";", ",", "-")
PARSED = ["first", "second", "by_part", "first_label", "second_label"]


@dataclass(frozen=True)
class Columns:
    """Names of the columns of a table, of the control, and the separator of a combination."""

    perturbation: str
    value: str
    control: str
    separator: str
    replicate: str | None
    context: str | None

    def check(self, table: pd.DataFrame) -> None:
        """Raise an error if the table is not a DataFrame, or lacks a column."""
        if not isinstance(table, pd.DataFrame):
            raise TypeError(
                f"`table` is a {type(table).__name__}. Pass a pandas DataFrame with one row per "
                "measurement."
            )
        keys = {
            "perturbation_key": self.perturbation, "value_key": self.value,
            "replicate_key": self.replicate, "context_key": self.context,
        }  # fmt: skip
        for argument, key in keys.items():
            if key is not None and key not in table.columns:
                raise KeyError(
                    f"`{argument}={key!r}` is not a column. {close_matches(key, table.columns)}"
                )
        if not isinstance(self.separator, str) or not self.separator:
            raise ValueError(f"`separator` must be a text such as '+', not {self.separator!r}.")


def read_screen(table: pd.DataFrame, columns: Columns) -> pd.DataFrame:
    """Return one row per measurement, with the two perturbations in alphabetical order.

    Columns: ``context``, ``first``, ``second`` (empty for singles, both empty for the control),
    ``first_label``, ``second_label``, ``by_part`` and ``value``.
    """
    columns.check(table)
    rows = pd.DataFrame(_parse(table, columns), columns=PARSED)
    rows["value"] = _values(table, columns)
    rows["context"] = "" if columns.context is None else table[columns.context].to_numpy()
    _refuse_missing(rows["context"], table, columns.context)
    _check_control(rows, table, columns)
    _check_separator(rows, columns)
    return rows


def _refuse_missing(values: pd.Series, table: pd.DataFrame, key: str | None) -> None:
    is_missing = values.isna().to_numpy()
    if is_missing.any():
        row = table.index[int(is_missing.argmax())]
        raise ValueError(
            f"Column {key!r} is missing in {is_missing.sum()} rows, e.g. in row {row!r}. "
            f"Drop them: table.dropna(subset=[{key!r}])"
        )


def _values(table: pd.DataFrame, columns: Columns) -> np.ndarray:
    values = pd.to_numeric(table[columns.value], errors="coerce").to_numpy(dtype=float)
    is_bad = ~np.isfinite(values)
    if is_bad.any():
        row = int(is_bad.argmax())
        raise ValueError(
            f"Column {columns.value!r} has {is_bad.sum()} values that are not finite numbers, e.g. "
            f"{table[columns.value].iloc[row]} in row {table.index[row]!r} "
            f"({table[columns.perturbation].iloc[row]!r}). Drop or correct these rows."
        )
    return values


def _parse(table: pd.DataFrame, columns: Columns) -> list[dict[str, object]]:
    """Return perturbations and labels of every row."""
    _refuse_missing(table[columns.perturbation], table, columns.perturbation)
    names = table[columns.perturbation].astype(str)
    labels = pd.Series("", names.index)
    if columns.replicate is not None:
        _refuse_missing(table[columns.replicate], table, columns.replicate)
        labels = table[columns.replicate].astype(str)
    known: dict[tuple[str, str], dict[str, object]] = {}
    keys = list(zip(names, labels, strict=True))
    for key in set(keys):
        known[key] = _parse_one(*key, columns)
    return [known[key] for key in keys]


def _parse_one(name: str, label: str, columns: Columns) -> dict[str, object]:
    separator = columns.separator
    parts = [name] if name == columns.control else [p.strip() for p in name.split(separator)]
    labels = [p.strip() for p in label.split(separator)]
    by_part = len(labels) > 1
    if by_part and len(labels) != len(parts):
        raise ValueError(
            f"Replicate {label!r} has {len(labels)} parts, but perturbation {name!r} has "
            f"{len(parts)}. A replicate has one part, or one for each perturbation."
        )
    if not all(parts):
        raise ValueError(
            f"Perturbation {name!r} has an empty part. Write pairs as {f'A{separator}B'!r}."
        )
    # 'A+control' is the single 'A'
    paired = zip(parts, labels if by_part else labels * len(parts), strict=True)
    found = sorted(pair for pair in paired if pair[0] != columns.control)
    if len(found) > 2:
        raise ValueError(
            f"{name!r} combines {len(found)} perturbations. Only pairs are supported. Drop the row,"
            " or name two perturbations that were always given together as one."
        )
    if len(found) == 2 and found[0][0] == found[1][0]:
        raise ValueError(f"{name!r} combines a perturbation with itself. Drop these rows.")
    (first, first_label), (second, second_label) = (*found, ("", ""), ("", ""))[:2]
    return {
        "first": first, "second": second, "by_part": by_part and len(found) == 2,
        "first_label": first_label if found else ("" if by_part else label.strip()),
        "second_label": second_label,
    }  # fmt: skip


def _check_control(rows: pd.DataFrame, table: pd.DataFrame, columns: Columns) -> None:
    has_control = set(rows.loc[rows["first"] == "", "context"])
    for context in rows["context"].unique() if len(rows) else [""]:
        if context not in has_control:
            where = "" if columns.context is None else f" in context {context!r}"
            names = table[columns.perturbation].astype(str).unique()
            raise ValueError(
                f"The control {columns.control!r} is not measured{where}. Add its measurements, or "
                f"pass its name as `control`. {close_matches(columns.control, names)}"
            )


def _check_separator(rows: pd.DataFrame, columns: Columns) -> None:
    """Raise an error if there are no pairs, and another separator would give some."""
    if rows["second"].ne("").any():
        return
    names = set(rows["first"])
    for separator in OTHER_SEPARATORS:
        for name in sorted(names):
            parts = name.split(separator)
            if len(parts) == 2 and set(parts) <= names - {""}:
                raise ValueError(
                    f"No perturbation contains `separator={columns.separator!r}`, but {name!r} "
                    f"combines two measured ones. Pass separator={separator!r}."
                )


def check_viability(rows: pd.DataFrame) -> None:
    """Raise a ValueError unless values are fractions of surviving cells."""
    control = rows.loc[rows["first"] == "", "value"].mean()
    if control > PERCENT:
        raise ValueError(
            f"The mean of the control is {control:.3g}, but viabilities are fractions, about 1 for "
            "the control. Divide percentages by 100, and other readouts by the mean of the "
            "control. For log fitness, pass scale='log'."
        )
    if (rows["value"] < 0).any() or control <= 0:
        raise ValueError(
            f"The smallest value is {rows['value'].min():.3g} and the mean of the control is "
            f"{control:.3g}. Viabilities must not be negative, and that of the control must be "
            "positive. Clip values at 0 after background subtraction. For log fitness, pass "
            "scale='log'."
        )
