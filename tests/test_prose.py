"""Our sentences follow the rules that a program can check, and the program finds what breaks them."""

from __future__ import annotations

from pathlib import Path

import pytest

from docs.prose import ROOT, docstring_lines, faults, measured, n_words, pages, sentences


@pytest.mark.parametrize("path", pages(), ids=lambda path: str(path.relative_to(ROOT)))
def test_sentences_follow_the_rules(path):
    found = [f"{fault.path.name}:{fault.line}: {fault.reason}" for fault in faults(path)]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("page.md", "The latent space is alive.\n", "the word 'alive'"),
        ("page.md", "Two cells, of which\none is empty.\n", "the word 'of which'"),
        ("page.md", "The correlation is .78 here.\n", "the number '.78 he'"),
        ("page.md", f"A sentence with {'very ' * 35}many words.\n", "40 words"),
        ("page.md", "```python\nx = 1  # alive\n```\nA dead cell.\n", "the word 'dead'"),
        ("code.py", '"""What this does."""\n', "summary: What this does."),
        ("code.py", 'def f():\n    """Whether cells agree."""\n', "summary: Whether cells agree."),
        ("code.py", 'class A:\n    """Of each gene the mean."""\n', "summary: Of each gene the mean."),
        ("code.py", "x = 1  # as ever\n", "the word 'ever'"),
        ("code.py", 'raise ValueError(f"Gene {x} was not found, as asked.")\n', "the word 'asked'"),
        ("code.py", 'warn("Coverage is .84 only.")\n', "the number '.84 on'"),
        ("book.ipynb", '{"cells": [{"cell_type": "markdown", "source": ["It is told."]}]}', "'told'"),
    ],
)  # fmt: skip
def test_a_fault_is_found(tmp_path, name, text, reason):
    path = tmp_path / name
    path.write_text(text)
    found = [fault.reason for fault in faults(path)]
    assert len(found) == 1
    assert reason in found[0]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("page.md", "Call `alive_at` for 0.78 of the cells, in v1.2.\n"),
        ("page.md", "# Dead or alive\n\n| told | .78 |\n|---|---|\n| asked | 1 |\n"),
        ("page.md", "$$\nx_{dead} = .5\n$$\n"),
        ("code.py", '"""Return cells.\n\nExamples\n--------\n>>> f(\'asked\')\n"""\n'),
        ("code.py", 'print(f"{share:.2f} and {x:.1%} of {n:.3g}")\n'),
    ],
)
def test_what_is_no_prose_is_left_alone(tmp_path, name, text):
    path = tmp_path / name
    path.write_text(text)
    assert faults(path) == []


def test_sentences_and_words_are_counted(tmp_path):
    assert sentences("One [link](a.md). Two: `a.b c`! *Three* is 0.5.") == [
        "One link.", "Two: `a.b c`!", "*Three* is 0.5.",
    ]  # fmt: skip
    assert n_words("The `model.train()` call, at β = 0.5, takes $x$ s.") == 9
    page = tmp_path / "page.md"
    page.write_text("# Title\n\nOne two three.\nOne: two.\n\n- One two three four.\n- A; b\n")
    assert measured([page]) == (2.5, 0.5)
    code = tmp_path / "code.py"
    code.write_text('"""Summary."""\n\n# comment\nx = 1\ny = 2\n')
    assert docstring_lines([code]) == 0.5


def test_the_goals_are_met():
    """Medians of sentence lengths and the shares of sentences with a pause, as the issue has them."""
    length, share = measured([ROOT / "README.md"])
    assert length <= 16
    assert share <= 0.25
    length, share = measured(sorted(Path(ROOT / "docs" / "guide").glob("*.md")))
    assert length <= 18
    assert share <= 0.25
