"""Every benchmark can be imported with the package as it is, so that a renamed part is noticed."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

SCRIPTS = sorted((Path(__file__).parents[1] / "benchmarks").glob("*.py"))
OPTIONAL = ("univi", "magic")
"""Peers that only ``make bench`` installs."""


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_a_benchmark_finds_what_it_imports(script):
    try:
        importlib.import_module(f"benchmarks.{script.stem}")
    except ModuleNotFoundError as error:
        if error.name not in OPTIONAL:
            raise
        pytest.skip(f"{error.name} is not installed")
