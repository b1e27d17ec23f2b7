"""The page of a report: HTML from a template, written in one step."""

from __future__ import annotations

import re
from importlib.resources import files
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup, escape

from betavi.diagnostics.trust import ANSWERS, PURPOSES
from betavi.model.io.replace import discard, reserve, take_place, tidy

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

    from betavi.model.report.content import ReportContent
    from betavi.model.report.section import Section, Table

ENDINGS = (".html", ".htm")
"""Endings of the file of a report."""

SIGNS = {ANSWERS[0]: "✓", ANSWERS[1]: "!", ANSWERS[2]: "✗"}
"""Signs of answers, so that colour is not needed."""

LEVEL_WORDS = {"stop": "Not usable", "care": "Care", "note": "Note"}

MOST_NAMES = 2000
"""Largest number of names in a list of the page."""


def checked_path(path: str | os.PathLike[str]) -> Path:
    """Return the path of the page. Raises an error if no file can be written there."""
    target = Path(path).expanduser().resolve()
    if target.suffix.lower() not in ENDINGS:
        raise ValueError(f"`path` must end in .html, not {str(path)!r}.")
    if target.is_dir():
        raise IsADirectoryError(f"`path` is a folder: {target}. Name a file in it.")
    if not target.parent.is_dir():
        raise FileNotFoundError(f"`path` is in a folder that does not exist: {target.parent}.")
    return target


def page_of(content: ReportContent, sections: Mapping[str, Section]) -> str:
    """Return the page as one HTML document that loads nothing."""
    template = files("betavi.model.report").joinpath("page.html.jinja").read_text("utf-8")
    environment = Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined
    )
    environment.filters |= {"table": _rows, "code": _with_code, "breakable": _breakable}
    order = {level: number for number, level in enumerate(LEVEL_WORDS)}
    return environment.from_string(template).render(
        content=content,
        sections=sections,
        purposes=PURPOSES,
        signs=SIGNS,
        level_words=LEVEL_WORDS,
        findings=sorted(content["findings"], key=lambda finding: order[finding["level"]]),
        most_names=MOST_NAMES,
    )


def write_page(text: str, target: Path) -> None:
    """Write a page. If this fails, an older file is unchanged."""
    tidy(target)
    new = reserve(target, target.suffix)
    try:
        new.write_text(text, encoding="utf-8")
        take_place(new, target)
    finally:
        discard(new)


def _rows(table: Table) -> dict[str, Any]:
    """Return the header, and the formatted rows of a table. The first column is the row header."""
    data = table.data if table.shown is None else table.shown
    is_text = [_is_text(data[name]) for name in data]
    return {
        "header": [str(data.index.name or ""), *map(str, data.columns)],
        "is_text": is_text,
        "rows": [
            (_formatted(index), [_formatted(value) for value in row])
            for index, row in zip(data.index, data.itertuples(index=False, name=None), strict=True)
        ],
    }


def _with_code(text: str) -> Markup:
    """Return a text whose parts in backticks are code."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))


def _breakable(name: str) -> Markup:
    """Return the name of a column that can be broken after an underscore."""
    return Markup(str(escape(name)).replace("_", "_<wbr>"))


def _is_text(column: pd.Series) -> bool:
    return not pd.api.types.is_numeric_dtype(column)


def _formatted(value: Any) -> str:
    """Return a value in a cell of the page."""
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if value is None or value is pd.NA or (isinstance(value, float) and np.isnan(value)):
        return "\N{EN DASH}"
    if isinstance(value, Real) and not isinstance(value, int | np.integer):
        number = float(value)
        return f"{number:.1f}" if 100 <= abs(number) < 1e6 else f"{number:.3g}"
    return str(value)
