"""One style for all plots, palettes, and saving."""

from __future__ import annotations

from collections.abc import Mapping
from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec, TypeAlias, TypeVar

import matplotlib.pyplot as plt
import numpy as np
from cycler import cycler

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from matplotlib.figure import Figure

    Palette: TypeAlias = Sequence[Any] | Mapping[Any, Any] | str | None
    """Colours in the order of groups, such as ``adata.uns["celltype_colors"]``, or by their names, or
    the name of a colour map."""

P = ParamSpec("P")
T = TypeVar("T")

PALETTE = (
    "#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0e442", "#000000",
)  # fmt: skip
"""Colours that differ for people with any kind of colour vision: Okabe & Ito (2008)."""

BLUE, VERMILION = PALETTE[0], PALETTE[5]
USED, NOISE, PALE, GREY = "#00517a", "#c7892b", "#8fb4c7", "#d9d9d9"
"""Colours of states, which differ in lightness too."""

STYLE: Any = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.prop_cycle": cycler(color=PALETTE),
    "legend.frameon": False,
    "legend.fontsize": 8,
    "image.cmap": "cividis",
}

IN_LEGEND = 25
"""Size of a group's mark in a legend: that of a cell is too small to show a colour."""

DPI = 300
"""Resolution of files, as journals require."""


def styled(draw: Callable[P, T]) -> Callable[P, T]:
    """Draw a plot in this style, and restore the user's own afterwards."""

    @wraps(draw)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> T:
        # only these: what a notebook sets when its first figure is made has to stay
        before = {name: plt.rcParams[name] for name in STYLE}
        plt.rcParams.update(STYLE)
        try:
            return draw(*args, **kwargs)
        finally:
            plt.rcParams.update(before)

    return drawn


def finish(axes: T, show: bool, save: str | Path | None) -> T:
    """Save the figure of some axes, show it, and return the axes."""
    figure: Figure = np.ravel(np.asarray(axes, dtype=object))[0].figure
    if save is not None:
        figure.savefig(save, dpi=DPI, bbox_inches="tight")
    if show:
        plt.show()
    return axes


def colours_of(names: Sequence[Any], palette: Palette = None) -> dict[Any, Any]:
    """Return a colour for each group, from a palette or from ours; ours repeat beyond twenty groups."""
    if isinstance(palette, str):
        steps = plt.get_cmap(palette).resampled(max(len(names), 1))
        return {name: steps(i) for i, name in enumerate(names)}
    if palette is None:
        many = plt.get_cmap("tab20")
        own = len(names) <= len(PALETTE)
        return {name: PALETTE[i] if own else many(i % many.N) for i, name in enumerate(names)}
    if isinstance(palette, Mapping):
        if without := [name for name in names if name not in palette]:
            raise ValueError(f"The palette has no colour for {without}; it has {list(palette)}.")
        return {name: palette[name] for name in names}
    if len(palette) < len(names):
        raise ValueError(f"The palette has {len(palette)} colours for {len(names)} groups.")
    return dict(zip(names, palette, strict=False))


def check_is(value: Any, attribute: str, words: str) -> None:
    """Raise a TypeError for a value that a plot cannot draw."""
    if not hasattr(value, attribute):
        raise TypeError(f"{words}, not a {type(value).__name__}.")


def check_one_each(word: str, values: Any, n_cells: int) -> None:
    """Raise a ValueError unless there is one value per cell, such as for the name of a column."""
    if isinstance(values, str):
        raise ValueError(f"{word} has a value for each cell, such as adata.obs[{values!r}].")
    if len(values) != n_cells:
        raise ValueError(f"{word} has {len(values)} values, and there are {n_cells} cells.")
