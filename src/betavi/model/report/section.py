"""Parts of a report: sections with their tables and pictures, and the rule that makes a section."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from io import BytesIO
from typing import TYPE_CHECKING, Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    import pandas as pd

    from betavi.diagnostics.trust import Finding
    from betavi.model.report.results import Results

LARGEST_SVG = 150_000
"""Size of a vector graphic in bytes, above which a picture is a bitmap. Not tuned."""

DPI = 130
"""Dots per inch of bitmaps."""


class Table(NamedTuple):
    """Table of a section. ``shown`` has the rows of the page, and ``data`` all rows."""

    caption: str
    data: pd.DataFrame
    shown: pd.DataFrame | None = None


class Picture(NamedTuple):
    """Picture of a section: its finding in words, and its content as a URI without a network."""

    alt: str
    uri: str


@dataclass
class Section:
    """Content of a section.

    ``verdict`` is a word, ``sentence`` the verdict in one sentence. ``answer`` is the section's part of
    the answer to a question of the first screen, if it has one. ``lists`` are names under a caption.
    ``remarks`` are limits of uses that no finding has, by use. ``untested`` are uses that the section tests
    for other data, but could not test here.
    """

    verdict: str
    sentence: str
    findings: list[Finding] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)
    lists: dict[str, list[str]] = field(default_factory=dict)
    answer: str = ""
    remarks: dict[str, str] = field(default_factory=dict)
    untested: tuple[str, ...] = ()
    state: str = "available"
    warnings: list[str] = field(default_factory=list)


class SectionRule(NamedTuple):
    """Rule that makes a section, and the texts that are the same for all models.

    ``needs`` is a method that the model must have. ``tests`` is the use of the model, a key of
    ``PURPOSES``, that the section tests. ``most_entries`` is the largest number of cells times features for
    which a slow section is made by default, and None for a fast section. These numbers are not tuned.
    """

    heading: str
    make: Callable[[Results], Section]
    call: str
    means: str
    does_not_mean: str
    needs: str = ""
    tests: tuple[str, ...] = ()
    most_entries: int | None = None


def counted(number: int, one: str, several: str = "") -> str:
    """Return a number with its noun in the right form."""
    return f"{number:,} {one if number == 1 else several or one + 's'}"


def picture_of(axes: Any, alt: str) -> Picture:
    """Return a picture of axes, and close their figure. Vector graphics, unless they are large."""
    figure: Any = np.ravel(np.asarray(axes, dtype=object))[0].figure
    try:
        # the same picture has the same bytes
        with plt.rc_context({"svg.hashsalt": "betavi"}):
            content, kind = _bytes_of(figure, "svg", metadata={"Date": None}), "svg+xml"
        if len(content) > LARGEST_SVG:
            content, kind = _bytes_of(figure, "png", dpi=DPI), "png"
    finally:
        plt.close(figure)
    return Picture(alt, f"data:image/{kind};base64,{base64.b64encode(content).decode()}")


def _bytes_of(figure: Any, kind: str, **options: Any) -> bytes:
    stream = BytesIO()
    figure.savefig(stream, format=kind, bbox_inches="tight", **options)
    return stream.getvalue()
