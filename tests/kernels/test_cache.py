"""Numba's cache on disk: it follows every change of the code, and changes no result."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import betavi.kernels
from betavi.kernels import compiled, plain

SOURCES = Path(betavi.kernels.__file__).parent
POISSON = """
import numpy as np
from betavi.kernels import compiled

row, nats, slope = np.zeros((1, 2), np.float32), np.zeros(1, np.float32), np.zeros(1, np.float32)
counts = np.array([0, 1], np.int32), np.array([1], np.int32), np.array([3], np.float32)
compiled.poisson_rows(*counts, row, np.zeros(2, np.float32), np.zeros(1), nats, slope)
print(float(nats[0]))
"""
ZINB = """
import hashlib
import numpy as np
from betavi.kernels import compiled

n, genes, rng = 32, 1000, np.random.default_rng(0)
counts = np.arange(n + 1, dtype=np.int32), np.arange(n, dtype=np.int32), np.ones(n, np.float32)
layer, logits, theta = rng.normal(size=(3, n, genes)).astype(np.float32)
theta, bias, slope = np.exp(theta[:1]), np.zeros(genes, np.float32), np.zeros_like(layer)
nats, by_size = np.zeros((2, n), np.float32)
compiled.zinb_rows(
    *counts, layer, bias, logits, bias, theta, 1 / theta, np.full(n, 7.0), nats, by_size, slope
)
print(hashlib.sha256(b"".join(x.tobytes() for x in (nats, by_size, slope, layer))).hexdigest())
"""


@pytest.fixture
def package(tmp_path):
    """A copy of the compiled loops that can be edited, in a package that holds nothing else."""
    copy = tmp_path / "betavi" / "kernels"
    shutil.copytree(SOURCES, copy, ignore=shutil.ignore_patterns("__*__*"))
    for folder in (copy, copy.parent):
        (folder / "__init__.py").touch()
    return copy


def printed(code, package):
    environment = os.environ | {
        "PYTHONPATH": str(package.parents[1]),
        "NUMBA_CACHE_DIR": str(package.parents[1] / "cache"),
    }
    command = [sys.executable, "-c", code]
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, check=True
    ).stdout


@pytest.mark.slow
def test_a_change_of_a_function_is_seen_by_those_that_call_it(package):
    """The Poisson loop calls ``log_factorial``, wherever that is defined."""
    before = float(printed(POISSON, package))
    (source,) = (p for p in package.glob("*.py") if "\ndef log_factorial(" in p.read_text())
    text = source.read_text()
    source.write_text(
        text.replace("def log_factorial(count):\n", "def log_factorial(count):\n    count += 1\n")
    )
    # 4! in the place of 3!
    assert float(printed(POISSON, package)) == pytest.approx(before + 1.386294, abs=1e-5)


def test_nothing_is_compiled_from_another_file():
    tree = ast.parse(Path(compiled.__file__).read_text())
    modules = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert modules == {"__future__", "numba"}
    assert compiled.EPS == plain.EPS


@pytest.mark.slow
def test_results_are_the_same_to_the_bit_whether_compiled_or_read_from_the_cache(package):
    compiling, reading = (printed(ZINB, package) for _ in range(2))
    assert compiling == reading
