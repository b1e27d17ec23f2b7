"""Every benchmark can be imported with the package as it is, so that a renamed part is noticed."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import numpy as np
import pytest

from benchmarks.middles import placed

ROOT = Path(__file__).parents[1]
SCRIPTS = sorted((ROOT / "benchmarks").glob("*.py"))
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


def test_make_bench_runs_every_command():
    """A benchmark that can be run alone is in the list."""
    listed = re.findall(r"python -m benchmarks\.(\w+)", (ROOT / "Makefile").read_text())
    commands = {path.stem for path in SCRIPTS if "__main__" in path.read_text()}
    assert commands == set(listed)


def test_a_cluster_has_its_place_between_two_others():
    """The nearest point of the line, and the way through the cluster relative to the line."""
    centres = {"a": np.zeros(2), "b": np.array([4.0, 0.0]), "beside": np.array([0.0, 3.0])}
    beside = placed(centres, "beside", ("a", "b"))
    assert (beside.detour, beside.share) == pytest.approx((2.0, 0.0))
    centres["between"] = np.array([1.0, 0.0])
    assert placed(centres, "between", ("a", "b"))[2:] == pytest.approx((1.0, 0.25))
    assert placed(centres, "between", ("b", "a"))[2:] == pytest.approx((1.0, 0.75))
