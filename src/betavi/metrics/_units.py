"""Pairs of perturbations beside their singles and the control of the same replicate."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import pandas as pd

if TYPE_CHECKING:
    import numpy as np

N_NAMED = 3  # names in a message
PAIR = ["context", "first", "second"]
UNIT = [*PAIR, "first_label", "second_label", "by_part"]


def units_of(rows: pd.DataFrame) -> pd.DataFrame:
    """Return one row per pair and replicate, with the means of its singles and of the control.

    Columns: those of a unit, ``n``, ``observed``, ``a`` and ``b`` (the singles) and ``c`` (the
    control). Labels match: a replicate such as ``"a1+b2"`` takes the singles ``"a1"`` and ``"b2"``.
    """
    is_pair, is_control = rows["second"] != "", rows["first"] == ""
    units = rows[is_pair].groupby(UNIT, sort=False)["value"].agg(["size", "mean"]).reset_index()
    units = units.rename(columns={"size": "n", "mean": "observed"})
    singles = rows[~is_pair & ~is_control]
    means = singles.groupby(["context", "first", "first_label"])["value"].mean()
    for column, part in (("a", "first"), ("b", "second")):
        units[column] = _matched(means, units[["context", part, f"{part}_label"]])
        _refuse_missing_single(units, column, part)
    controls = rows[is_control].groupby(["context", "first_label"])["value"].mean()
    units["c"] = _matched(controls, units[["context", "first_label"]])
    # a label of guides does not name a replicate of the control
    overall = rows[is_control].groupby("context")["value"].mean()
    units.loc[units["by_part"], "c"] = units["context"].map(overall)
    if units["c"].isna().any():
        label = units.loc[units["c"].isna(), "first_label"].iloc[0]
        raise ValueError(
            f"Replicate {label!r} has pairs, but no control. Add the control of each replicate, or "
            "pass `replicate_key=None` if replicates share a control."
        )
    return units


def _matched(means: pd.Series, keys: pd.DataFrame) -> np.ndarray:
    return cast("np.ndarray", means.reindex(pd.MultiIndex.from_frame(keys)).to_numpy(dtype=float))


def _refuse_missing_single(units: pd.DataFrame, column: str, part: str) -> None:
    missing = units[units[column].isna()]
    if missing.empty:
        return
    pairs = (missing["first"] + "+" + missing["second"]).unique()
    one = missing.iloc[0]
    places = [
        f" in {word} {one[key]!r}"
        for word, key in (("context", "context"), ("replicate", f"{part}_label"))
        if one[key] != ""
    ]
    more = f" and {len(pairs) - N_NAMED} more" if len(pairs) > N_NAMED else ""
    is_matched = one[f"{part}_label"] != ""
    hint = " If singles have other replicates, pass `replicate_key=None`." if is_matched else ""
    raise ValueError(
        f"The single {one[part]!r} is not measured{''.join(places)}. The pairs "
        f"{', '.join(map(repr, pairs[:N_NAMED]))}{more} lack a single. Add it, or drop these pairs."
        f"{hint}"
    )
