"""Every benchmark can be imported with the package as it is, so that a renamed part is noticed."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import numpy as np
import pytest
from scipy import fft, stats

from benchmarks import images
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


@pytest.mark.parametrize("by_band", [False, True])
def test_nats_of_images_are_those_of_a_normal_distribution(by_band):
    """Images with one strong pattern, and noise that is white or differs between bands."""
    rng = np.random.default_rng(0)
    pattern = rng.normal(size=64)
    pattern /= np.linalg.norm(pattern)
    # an octave is a whole number of bands
    rough = images.frequency_bands(8, 8, 1).ravel() == images.frequency_bands(8, 8, 1).max()
    sd = np.where(rough & by_band, 2.0, 5.0)
    values = 40 * rng.normal(size=(3000, 1)) * pattern + sd * rng.normal(size=(3000, 64))
    cells = fft.idctn(values.reshape(-1, 1, 8, 8), axes=(2, 3), norm="ortho")
    task = images.Task(cells[:2500], cells[2500:])
    found = images.pca(1, per_octave=int(by_band))(task, 0)
    covariance = 1600 * np.outer(pattern, pattern) + np.diag(sd**2)
    true = -stats.multivariate_normal(np.zeros(64), covariance).logpdf(values[2500:])
    assert found.nats.mean() == pytest.approx(true.mean(), rel=0.01)
    # the information of a normal channel
    signal = (pattern**2 / sd**2).sum() * 1600
    assert found.rate == pytest.approx(np.log1p(signal) / 2, rel=0.05)
    wrong = images.pca(1)(task, 0)
    assert wrong.nats.mean() > true.mean() + (3 if by_band else -1)
    # a draw has the variance of the images
    assert found.draw.var() == pytest.approx(cells.var(), rel=0.05)
