"""Draws the rooms of the package from the text that keeps them: the contract in pyproject.toml."""

from __future__ import annotations

import tomllib
from typing import TYPE_CHECKING

from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

if TYPE_CHECKING:
    from pathlib import Path

HOLDS = {
    "pl": "pictures: Axes in and out",
    "metrics": "what judges a result",
    "model": "BetaVI, JointVI: a core, and a package for each kind of ability",
    "train": "training plan, guard, the run",
    "data": "rows, minibatches, the split, start values",
    "module": "encoders → posterior → decoders → likelihoods, written once",
    "objective": "rate, distortion, schedules: pure functions",
    "likelihoods": "p(x | z), one file each",
    "nn": "parts with weights: networks, fusion, priors",
    "kernels": "log-probabilities, compiled and plain",
    "diagnostics": "from arrays to reports",
    "_blocks": "how much is in memory at once",
    "_tables": "from a user's word to a class",
}
HEIGHT, GAP, WIDTH = 0.8, 0.35, 10.0
BOX = {
    "boxstyle": "round,pad=0,rounding_size=0.1",
    "facecolor": "#e8f1f8",
    "edgecolor": "#0072b2",
    "linewidth": 1.2,
}


def rooms_of(pyproject: Path) -> list[list[str]]:
    """Return the rooms that the import linter keeps apart, the topmost first."""
    contracts = tomllib.loads(pyproject.read_text())["tool"]["importlinter"]["contracts"]
    (layers,) = (c["layers"] for c in contracts if c.get("containers") == ["betavi"])
    return [[room.strip() for room in layer.split("|")] for layer in layers]


def draw_rooms(pyproject: Path, target: Path) -> None:
    """Write a picture in which each room may import those below it."""
    layers = rooms_of(pyproject)
    figure = Figure(figsize=(9, 0.62 * len(layers)), layout="constrained")
    ax = figure.subplots()
    for number, layer in enumerate(layers):
        top, width = -number * (HEIGHT + GAP), WIDTH / len(layer)
        for place, room in enumerate(layer):
            left = place * width
            corner = (left + 0.05, top - HEIGHT)
            ax.add_patch(FancyBboxPatch(corner, width - 0.1, HEIGHT, **BOX))
            middle = (left + width / 2, top - HEIGHT / 2)
            ax.annotate(f"{room}\n{HOLDS[room]}", middle, ha="center", va="center", fontsize=8.5)
    ax.annotate(
        "may import", (WIDTH + 0.35, -len(layers) * (HEIGHT + GAP) + GAP), (WIDTH + 0.35, -0.1),
        rotation=90, ha="center", va="top", fontsize=9, arrowprops={"arrowstyle": "->"},
    )  # fmt: skip
    ax.set(xlim=(0, WIDTH + 0.7), ylim=(-len(layers) * (HEIGHT + GAP), 0.1))
    ax.axis("off")
    target.parent.mkdir(exist_ok=True)
    figure.savefig(target)
