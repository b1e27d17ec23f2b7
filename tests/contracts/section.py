"""The contract of a section of the trust report, judged with a trained model."""

from __future__ import annotations

import json

import numpy as np

from betavi.diagnostics.trust import LEVELS, PURPOSES
from betavi.model.report.content import section_content, stored
from betavi.model.report.report import _made
from betavi.model.report.results import Results
from betavi.model.report.section import Section
from betavi.model.report.sections import SECTIONS

STATES = {"available", "not available"}


def check_section(name, model):
    """Make the section of a model, or a section that says why it has none."""
    rule = SECTIONS[name]
    check_words(rule.heading, rule.means, rule.does_not_mean)
    assert rule.call
    assert set(rule.tests) <= PURPOSES.keys()
    section = _made(Results(model, show_progress=False), rule, "")
    assert isinstance(section, Section)
    assert section.state in STATES
    assert section.verdict
    assert section.sentence.endswith((".", ")")), section.sentence
    if section.state == "not available":
        assert not section.findings
        return section
    for finding in section.findings:
        assert finding.level in LEVELS
        assert finding.section in SECTIONS
        assert finding.text.endswith((".", ":"))
        assert finding.remedy or finding.level == "note"
        assert set(finding.purposes) <= PURPOSES.keys()
    for table in section.tables:
        assert table.caption
        assert table.data.columns.is_unique
        assert table.shown is None or len(table.shown) <= len(table.data)
    for picture in section.pictures:
        assert len(picture.alt.split()) > 3
        assert picture.uri.startswith("data:image/")
    content = section_content(rule, section)
    assert json.loads(json.dumps(content, allow_nan=False)) == content
    check_can_be_stored(stored(content))
    return section


def check_words(heading, *texts):
    assert heading[0].isupper()
    for text in texts:
        assert text.endswith(".")
        assert len(text.split()) > 10


def check_can_be_stored(value):
    """Only what a file of an AnnData holds: no lists, no None, no slash in a key."""
    if isinstance(value, dict):
        for key, part in value.items():
            assert isinstance(key, str)
            assert "/" not in key
            check_can_be_stored(part)
    else:
        assert isinstance(value, str | int | float | bool | np.ndarray), type(value)
