"""Content of a report as plain values, for JSON and for ``uns``."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np
import pandas as pd

from betavi.diagnostics.trust import ANSWERS, LEVELS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from betavi.diagnostics.trust import Finding, Overall
    from betavi.model.report.section import Section, SectionRule, Table


class TableContent(TypedDict):
    """Table: its caption, and the values of each column. Missing numbers are None."""

    caption: str
    columns: dict[str, list[Any]]


class SectionContent(TypedDict):
    """Section. ``state`` is ``"available"``, ``"skipped"`` or ``"not available"``."""

    heading: str
    state: str
    verdict: str
    sentence: str
    call: str
    means: str
    does_not_mean: str
    warnings: list[str]
    pictures: list[str]
    lists: dict[str, list[str]]
    tables: list[TableContent]


class Answers(TypedDict):
    """Answers to the four questions of the first screen."""

    usable: str
    genes: str
    cells: str
    changes: list[str]


class ReportContent(TypedDict):
    """Content of a report. ``remarks`` are reasons of the answers, and limits of uses, by use."""

    model: str
    settings: str
    data: str
    created: str
    answer: str
    purposes: dict[str, str]
    remarks: dict[str, str]
    answers: Answers
    findings: list[dict[str, Any]]
    sections: dict[str, SectionContent]


def section_content(rule: SectionRule, section: Section) -> SectionContent:
    """Return a section as plain values."""
    return {
        "heading": rule.heading,
        "state": section.state,
        "verdict": section.verdict,
        "sentence": section.sentence,
        "call": rule.call,
        "means": rule.means,
        "does_not_mean": rule.does_not_mean,
        "warnings": section.warnings,
        "pictures": [picture.alt for picture in section.pictures],
        "lists": section.lists,
        "tables": [_table_content(table) for table in section.tables],
    }


def remarks_of(
    overall: Overall, findings: list[Finding], sections: Mapping[str, Section]
) -> dict[str, str]:
    """Return why a use is not usable or needs care, and limits that no finding has, by use."""
    found = {}
    for purpose, answer in overall.by_purpose.items():
        reasons = [
            _first_sentence(finding)
            for finding in findings
            if LEVELS[finding.level] == answer != ANSWERS[0]
            and (not finding.purposes or purpose in finding.purposes)
        ]
        limits = [one.remarks[purpose] for one in sections.values() if purpose in one.remarks]
        # a use that is ruled out has no other limits
        texts = reasons if answer == ANSWERS[2] else reasons + limits
        found[purpose] = " ".join(dict.fromkeys(texts))
    return found


def answers_of(
    overall: Overall, findings: list[Finding], sections: Mapping[str, Section]
) -> Answers:
    """Return the answers to the four questions of a reader."""
    # more training does not help a use that is ruled out
    open_uses = {name for name, answer in overall.by_purpose.items() if answer != ANSWERS[2]}
    stops = [finding for finding in findings if finding.level == "stop"]
    cares = [f for f in findings if f.level == "care" and open_uses & {*(f.purposes or open_uses)}]
    remedies = [finding.remedy for finding in (*stops, *cares)]
    changes = list(dict.fromkeys(filter(None, remedies)))
    # models of screens have effects in place of denoised genes
    use, of_genes = (
        ("genes", "denoising") if "genes" in overall.by_purpose else ("effects", "effects")
    )
    return {
        "usable": f"{overall.answer.capitalize()}. {overall.sentence}",
        "genes": _ruled_out(use, findings) or _genes(sections, of_genes),
        "cells": _cells(overall, findings, sections),
        "changes": changes or ["Nothing has to be changed."],
    }


def _genes(sections: Mapping[str, Section], name: str) -> str:
    """Return the answer about genes, with the predictions of one modality from another."""
    predicted = sections["calibration"].answer if "calibration" in sections else ""
    paired = sections["interactions"].answer if "interactions" in sections else ""
    return " ".join(filter(None, (_answer(sections, name), predicted, paired)))


def _cells(overall: Overall, findings: list[Finding], sections: Mapping[str, Section]) -> str:
    """Return the answer about cells. Effects of perturbations do not need a map of single cells."""
    none = _ruled_out("map", findings)
    if none and overall.by_purpose.get("effects", ANSWERS[2]) != ANSWERS[2]:
        return f"For a map of single cells: {none[0].lower()}{none[1:]} Effects are means over many cells."
    return none or _answer(sections, "cells")


def _ruled_out(purpose: str, findings: list[Finding]) -> str:
    """Return the finding that rules out a use, or an empty text."""
    for finding in findings:
        if finding.level == "stop" and (not finding.purposes or purpose in finding.purposes):
            return f"None. {_first_sentence(finding)}"
    return ""


def _first_sentence(finding: Finding) -> str:
    first, _, _ = finding.text.partition(". ")
    return f"{first.removesuffix('.')}."


def _answer(sections: Mapping[str, Section], name: str) -> str:
    """Return the answer of a section, or why it was not measured."""
    section = sections.get(name)
    if section is None:
        return f"Not measured. Add the section: sections=[..., {name!r}]"
    return section.answer or f"Not measured. {section.sentence}"


def stored(value: Any) -> Any:
    """Return content as ``uns`` can hold it in a file.

    Lists become arrays, with NaN or an empty text for None. Lists of dictionaries become dictionaries
    with the keys "0", "1" and so on. None is left out, and a slash in a key becomes a hyphen.
    """
    if isinstance(value, dict):
        return {
            key.replace("/", "-"): stored(part) for key, part in value.items() if part is not None
        }
    if not isinstance(value, list):
        return value
    if value and all(isinstance(part, dict) for part in value):
        return {str(number): stored(part) for number, part in enumerate(value)}
    is_text = any(isinstance(part, str) for part in value)
    if is_text:
        return np.array(["" if part is None else str(part) for part in value], dtype=object)
    if value and all(isinstance(part, bool) for part in value):
        return np.array(value)
    return np.array([np.nan if part is None else part for part in value], dtype=float)


def _table_content(table: Table) -> TableContent:
    data = table.data
    index = data.index.get_level_values(0) if isinstance(data.index, pd.MultiIndex) else data.index
    columns = {str(index.name or "name"): [_plain(value) for value in index.tolist()]}
    columns |= {str(name): [_plain(value) for value in data[name].tolist()] for name in data}
    return {"caption": table.caption, "columns": columns}


def _plain(value: Any) -> Any:
    """Return a value that JSON has a form for, None for a missing number."""
    if isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return None if value is None or value is pd.NA else str(value)
