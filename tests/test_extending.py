"""Members from outside the package, those of docs/extending.md, keep every contract as it stands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from betavi.diagnostics import CAUSES, causes_of
from betavi.likelihoods import LIKELIHOODS
from betavi.nn import FUSIONS
from betavi.objective import SCHEDULES
from tests.contracts import check_cause, check_fusion, check_likelihood, check_schedule
from tests.contracts.cause import EXAMPLES, evidence

PAGE = Path(__file__).parents[1] / "docs" / "extending.md"


@pytest.fixture
def defined():
    """What the page defines, without the examples that use it."""
    names = {}
    for example in re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL):
        if re.search(r"^(class|def) ", example, flags=re.MULTILINE):
            exec(example, names)
    return names


def test_a_likelihood(defined, monkeypatch):
    monkeypatch.setitem(LIKELIHOODS, "geometric", defined["GeometricLikelihood"])
    check_likelihood(LIKELIHOODS["geometric"])


def test_a_fusion_rule(defined, monkeypatch):
    monkeypatch.setitem(FUSIONS, "geometric_mean", defined["GeometricMean"])
    check_fusion(FUSIONS["geometric_mean"])


def test_a_schedule(defined, monkeypatch):
    monkeypatch.setitem(SCHEDULES, "square_root", defined["square_root"])
    check_schedule(SCHEDULES["square_root"])


def test_a_cause(defined, monkeypatch):
    monkeypatch.setitem(CAUSES, "shallow_cells", defined["shallow_cells"])
    check_cause("shallow_cells")
    for first, changes in EXAMPLES:
        names = [cause.name for cause in causes_of(evidence(**changes))]
        assert (names[0], names[-1]) == (first, "shallow_cells")
